"""A leaderboard as Markdown, CSV and JSON, and the words that all formats share.

Whatever a record brings along is text and nothing else: no control characters, no markup, no formulas.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lra.board import Board, Cell, Column, Cost, Table, Truncated
from lra.record import ROOT, Found, Origin, reported_variant
from tasks import available, load_task
from tasks.core import Card, base_variant, is_copy

FIRST_RUN = "python run_lra.py train --task listops --mixer cosformer --protocol quick"
ORIGINS: tuple[Origin, ...] = ("yours", "committed")
STOPPED = "Stopped before the last step; not comparable with a complete run"
COST = "Parameters and minutes of a run"
MEAN = "5-task mean"
NONE = "–"
PARAMETER_SLACK = 0.1  # Tay et al. (2021), section 3.2
BLOCK_MARK = "[block]"  # as `models.mixers.label` writes it
CSV_HEAD = (
    *("origin", "file", "kind", "status", "id", "created", "task", "variant", "task_version", "source", "data_sha256"),
    *("protocol", "protocol_version", "modified", "mixer", "options", "mixer_sha256", "seed"),
    *("steps_done", "steps_planned", "accuracy", "correct", "count", "loss", "at_chance", "majority_accuracy"),
    *("selection", "selected_step", "parameters", "seconds", "steps_per_second", "peak_bytes"),
    *("backend", "device", "device_count", "cores", "python", "jax", "flax"),
    *("config_sha256", "code_sha256", "git_commit", "git_clean", "message"),
)


# ---- what all formats say


def clean(value: object) -> str:
    """One line without control or formatting characters."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def percent(accuracy: float | None) -> str:
    return NONE if accuracy is None else f"{100 * accuracy:.1f}"


def cell_text(cell: Cell | None) -> str:
    """`36.5±0.5 (3)`; see `legend`."""
    if cell is None:
        return NONE
    n, failed = len(cell.accuracies), len(cell.diverged)
    if not n:
        return "diverged" if failed == 1 else f"{failed} diverged"
    text = percent(cell.mean)
    if cell.deviation is not None:
        text += f"±{100 * cell.deviation:.1f}"
    notes = [str(n)] if n > 1 else []
    notes += [f"{cell.at_chance}≈"] if 0 < cell.at_chance < n else []
    notes += [f"{failed} diverged"] if failed else []
    marks = "≈" * (cell.at_chance == n) + "▽" * cell.below_floor + "=" * cell.tied
    return text + (f" ({', '.join(notes)})" if notes else "") + marks


def cost_texts(cost: Cost) -> list[str]:
    """`95k · 12`: parameters and minutes; `340k (3.6x) · 12` where LRA's 10 % around softmax are left."""
    return [_cost_text(*pair) for pair in zip(cost.cells, cost.ratios, strict=True)]


def _cost_text(cost: tuple[int, float] | None, ratio: float | None) -> str:
    if cost is None:
        return NONE
    parameters, minutes = cost
    size = f"{parameters / 1e6:.1f}M" if parameters >= 999_500 else f"{parameters / 1e3:.0f}k"
    unlike = f" ({ratio:.2g}x)" if ratio is not None and abs(ratio - 1) > PARAMETER_SLACK else ""
    return f"{size}{unlike} · {minutes_text(minutes)}"


def minutes_text(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 9.95 else f"{minutes:.1f}"


def stopped_texts(run: Truncated) -> tuple[str, ...]:
    """Seed, steps, accuracy, majority, minutes."""
    accuracy = percent(run.accuracy) + "≈" * run.at_chance
    steps = f"{run.steps_done:,} of {run.steps_planned:,}"
    return str(run.seed), steps, accuracy, percent(run.majority), minutes_text(run.minutes)


def heading(column: Column, beside: Sequence[Column] = ()) -> tuple[str, str, str]:
    """Title, variant and source of a column; with version and data hash where another one would read the same."""
    same = [c for c in beside if (c.task, c.variant, c.source) == (column.task, column.variant, column.source)]
    exact = f", version {column.task_version}, data {column.data_sha256[:8]}" if len(same) > 1 else ""
    card = card_of(column)
    return clean(card.title if card else column.task), clean(column.variant), clean(column.source + exact)


def card_of(column: Column) -> Card | None:
    return load_task(column.task).CARD if column.task in available() else None


def machines(board: Board) -> dict[str, str]:
    """A letter for each hardware, if there are several; nothing for a single one."""
    names = {c.hardware for t in board.tables for c in t.costs} | {
        s.hardware for t in board.tables for s in t.truncated
    }
    letters = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(len(names))]
    return dict(zip(sorted(names), letters if len(names) > 1 else [""], strict=False))


def legend(board: Board) -> list[str]:
    """Sentences on the marks that occur, and on nothing else; the hardware."""
    cells = [c for t in board.tables for r in t.rows for c in r.cells if c]
    said = ["Test accuracy in per cent."]
    if any(len(c.accuracies) > 1 for c in cells):
        said.append("36.5±0.5 (3): mean, standard deviation and number of seeds; a number alone is one seed.")
    elif cells:
        said.append("Every number is one seed.")
    if any(c.at_chance for c in cells) or any(s.at_chance for t in board.tables for s in t.truncated):
        said.append("≈: at chance, no more than two standard errors above the majority class.")
    if any(c.below_floor for c in cells):
        said.append("▽: does not beat the highest floor of its column, which has no sequence model.")
    if any("x)" in text for t in board.tables for c in t.costs for text in cost_texts(c)):
        said.append("(3.6x): times softmax's parameters, where that is more than LRA's 10 % away.")
    if any(c.tied for c in cells):
        said.append(
            "=: no difference from the best of the column (of the same origin) is shown, by a paired bootstrap of 95 % "
            "over test examples and, where there are several, seeds."
        )
    if any(c.diverged for c in cells):
        said.append("diverged: the loss of a seed was no longer finite; it has no accuracy and stays on the board.")
    if any(label.endswith(BLOCK_MARK) for t in board.tables for label in _labels(t)):
        said.append(f"{BLOCK_MARK}: stands in the place of the whole block, not of attention alone.")
    if any(r.mean is not None for t in board.tables for r in t.rows):
        said.append(f"{MEAN}: only where all five tasks are there.")
    said += [f"{f'Hardware {letter}'.strip()}: {clean(name)}." for name, letter in machines(board).items()]
    return said


def _labels(t: Table) -> set[str]:
    return {r.label for r in t.rows} | {s.label for s in t.truncated}


def nothing(board: Board) -> str:
    """What an empty board says before the command of a first run."""
    if board.others:
        return f"No results of this protocol; there are some of {clean(', '.join(board.others))}. The first ones:"
    return "No results yet. The first ones, in a few minutes:"


# ---- Markdown


def as_markdown(board: Board) -> str:
    """The board as a chapter of a page, heading of the second level."""
    if not board.tables:
        return f"## Leaderboard\n\n{md(nothing(board))}\n\n    {FIRST_RUN}"
    letters = machines(board)
    origins = {
        "committed": "Rows from *committed* are records in `results/`.",
        "yours": "Rows from *yours* are runs of the machine that printed this, in `runs/`.",
    }
    there = {f.origin for f in board.found if f.record["kind"] == "run"}
    intro = [md(sentence) for sentence in legend(board)] + [origins[o] for o in origins if o in there]
    lines = ["## Leaderboard", "", " ".join(intro), ""]
    for t in board.tables:
        lines += [f"### {md(t.label)}", ""]
        if t.about:
            lines += [f"{t.about[0].upper()}{t.about[1:]}.", ""]
        lines += _md_table(t, letters)
    columns = dict.fromkeys(c for t in board.tables for c in (*t.columns, *(s.column for s in t.truncated)))
    return "\n".join([*lines, "### The columns", "", *(f"- {_md_column(c)}" for c in columns)])


def _md_table(t: Table, letters: Mapping[str, str]) -> list[str]:
    heads = [[md(text) for text in heading(c, t.beside)] for c in t.columns]
    titles = [f"{title}<br>{variant}" for title, variant, _ in heads]
    mean = any(r.mean is not None for r in t.rows)
    lines = []
    if t.rows:
        rows = [
            [_md_name(r.label, r.changes), r.origin, *map(cell_text, r.cells), *[percent(r.mean)] * mean]
            for r in t.rows
        ]
        for f in t.floors:
            rows.append([f"*{md(f.name)}*", "*floor*", *map(percent, f.accuracies), *[percent(f.mean)] * mean])
        rows.append(["<sub>source</sub>", "", *(f"<sub>{source}</sub>" for *_, source in heads), *[""] * mean])
        lines += md_grid(["mixer", "from", *titles, *[MEAN] * mean], rows, left=2)
    if t.truncated:
        rows = []
        for s in t.truncated:
            title, variant, source = (md(text) for text in heading(s.column))
            name = _md_name(s.label, s.changes, letters[s.hardware])
            rows.append([name, s.origin, f"{title}, {variant}", source, *stopped_texts(s)])
        head = ["mixer", "from", "task", "source", "seed", "steps", "accuracy", "majority class", "minutes"]
        lines += [f"**{STOPPED}**", "", *md_grid(head, rows, left=4)]
    if t.costs:
        rows = [[_md_name(c.label, c.changes, letters[c.hardware]), c.origin, *cost_texts(c)] for c in t.costs]
        lines += [f"**{COST}**", "", *md_grid(["mixer", "from", *titles], rows, left=2)]
    return lines


def md(value: object) -> str:
    """Text inside a cell: neither HTML, nor Markdown, nor the end of the cell."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(clean(value), quote=False))


def _md_name(label: str, changes: Sequence[str], letter: str = "") -> str:
    hardware = f" <sub>on {letter}</sub>" if letter else ""
    return md(label) + hardware + "".join(f"<br><sub>{md(c)}</sub>" for c in changes)


def md_grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """A table whose first `left` columns are text, and an empty line."""
    ruler = [":--"] * left + ["--:"] * (len(head) - left)
    return ["| " + " | ".join(row) + " |" for row in (head, ruler, *rows)] + [""]


def _md_column(column: Column) -> str:
    """What a column is, by its card where that is still of the same version."""
    title, variant, source = (md(text) for text in heading(column))
    text, card = f"**{title}, {variant}**", card_of(column)
    if card and card.version == column.task_version and column.variant in card.variants:
        text += f": {md(card.about.rstrip('.?'))}; {md(card.variants[column.variant].about)}"
    elif is_copy(column.variant):
        text += f": a copy of `{md(base_variant(column.variant))}` whose splits have other sizes; no mean counts it"
    text += f". Data: {source}; SHA-256 `{md(column.data_sha256[:8])}`, task version {md(column.task_version)}"
    return text + (f"; {column.examples:,} test examples." if column.examples else ".")


# ---- CSV and JSON


def as_csv(board: Board) -> str:
    """One line per record, in the order of the board: every fact but curve, confusion and predictions."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_HEAD, lineterminator="\n")
    writer.writeheader()
    for f in board.found:
        facts = _facts(f)
        writer.writerow({name: _csv(facts.get(name)) for name in CSV_HEAD})
    return text.getvalue().removesuffix("\n")


def _facts(f: Found) -> dict[str, Any]:
    r = f.record
    steps, selection = r.get("steps", {}), r.get("selection", {})
    within = f.path.is_relative_to(ROOT)
    return {
        **r,
        **r["column"],
        "variant": reported_variant(r),
        **r["test"],
        **r["environment"],
        "origin": f.origin,
        "file": f.path.relative_to(ROOT).as_posix() if within else f.path.name,
        "mixer": r["mixer"]["label"],
        "options": json.dumps(r["mixer"]["options"], sort_keys=True),
        "mixer_sha256": r["mixer"]["sha256"],
        "steps_done": steps.get("done"),
        "steps_planned": steps.get("planned"),
        "selection": selection.get("rule"),
        "selected_step": selection.get("step"),
        "code_sha256": r["code"]["sha256"],
        "git_commit": r["code"]["git_commit"],
        "git_clean": r["code"]["git_clean"],
    }


def _csv(value: object) -> object:
    """A spreadsheet runs a text that begins like a formula; an apostrophe says that it is text."""
    if not isinstance(value, str):
        return value
    line = clean(value)
    return f"'{line}" if line.lstrip().startswith(("=", "+", "-", "@")) else line


def as_json(board: Board) -> str:
    """The board itself: tables, columns, rows and cells, with the accuracy of every seed."""
    tables = [{"label": t.label, **dataclasses.asdict(t)} for t in board.tables]
    return json.dumps({"tables": tables}, indent=1)
