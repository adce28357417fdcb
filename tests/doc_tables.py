"""The tables of docs/results.md, docs/recipes.md and docs/tasks.md, from committed records and published figures.

`python -m tests.doc_tables` rewrites them between their markers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from scipy.stats import t as student

from lra.config import TASKS
from lra.leaderboard.build import board
from lra.leaderboard.comparison import LEVEL, interval
from lra.leaderboard.html.run_page import is_quick
from lra.leaderboard.published import accuracy
from lra.leaderboard.text import percent
from lra.leaderboard.types import LeaderboardCell, Table
from lra.paths import ROOT, results_directory
from lra.record import files
from lra.record.baseline_models import MAJORITY
from lra.record.facts import Key, retired
from lra.record.files import of_kind
from lra.record.schema import BaselineRecord, RunRecord
from models import mixers
from models.feature_maps import FEATURE_MAPS
from tasks import load_task
from tasks.core import base_variant

RESULTS, RECIPES, TASKS_PAGE = (ROOT / "docs" / name for name in ("results.md", "recipes.md", "tasks.md"))
# Rows of the table in cosFormer's paper that are shown beside results, by mixer.
PAPER_ROWS = {"cosformer": "cosFormer", "softmax": "Transformer", "linear": "Linear Trans."}
RESULTS_HEAD = ("task", "mixer", "seeds", "accuracy (95 % interval)", "published", "difference", "hardware", "minutes")
TABLES = accuracy()
COMMITTED = [f for f in files.find([(results_directory(), "committed")]) if not retired(f.record)]


def grid(head: Sequence[str], align: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, align, *rows))


def confidence(cell: LeaderboardCell) -> tuple[float, float]:
    """Return the 95 % interval of a cell: over test examples for one seed (Wilson), over seeds for several (t)."""
    if len(cell.accuracies) == 1:
        return interval(cell.accuracies[0], cell.examples)
    mean, seeds = statistics.fmean(cell.accuracies), len(cell.accuracies)
    half = student.ppf((1 + LEVEL) / 2, seeds - 1) * statistics.stdev(cell.accuracies) / math.sqrt(seeds)
    return mean - half, mean + half


def results_tables() -> dict[str, str]:
    """Return by protocol, except `quick`, a table with one line per task and mixer of the committed records."""
    records = {f.record.id: f.record for f in of_kind(COMMITTED, RunRecord) if f.record.status == "complete"}
    lines: dict[str, list[list[str]]] = {}
    for table in board(COMMITTED).tables:
        if not is_quick(table.protocol):
            lines.setdefault(_title(table), []).extend(_results(table, records))
    align = (":--", ":--", "--:", "--:", "--:", "--:", ":--", "--:")
    return {title: grid(RESULTS_HEAD, align, rows) for title, rows in lines.items() if rows}


def _title(table: Table) -> str:
    return table.label + ("" if table.track == "matched" else f" ({table.track})")


def _results(table: Table, records: Mapping[str, RunRecord]) -> Iterator[list[str]]:
    (paper,) = (t for t in TABLES if t.protocol == "lra")
    figures = {row.name: row.figures for row in paper.rows}
    for i, column in enumerate(table.columns):
        title = load_task(column.task).CARD.title + ("" if column.variant == "full" else f", {column.variant}")
        for row in sorted(table.rows, key=lambda row: row.label):
            cell = row.cells[i]
            if cell is None or not cell.accuracies:
                continue
            runs = [records[name] for name in cell.records if name in records]
            mean = statistics.fmean(cell.accuracies)
            figure = figures.get(PAPER_ROWS.get(row.label, ""), {}).get(column.task)
            published = figure if base_variant(column.variant) == "full" and isinstance(figure, Decimal) else None
            yield [
                title,
                f"`{row.label}`" + "".join(f" {change}" for change in row.changes),
                str(len(cell.accuracies)),
                _with_interval(cell) + (" at chance" if all(cell.at_chance) else ""),
                "–" if published is None else f"{published:.1f}",
                "–" if published is None else f"{100 * mean - float(published):+.1f}",
                "; ".join(dict.fromkeys(run.environment.hardware for run in runs)),
                f"{statistics.fmean(run.seconds for run in runs) / 60:.0f}",
            ]


def recipe_table() -> str:
    """Return the accuracy with each recipe beside that of the same mixer, task and protocol without it."""
    cells: dict[tuple[Key, str, str], dict[str, LeaderboardCell]] = {}
    for table in board(COMMITTED).tables:
        protocol, _, recipe = table.protocol.partition("+")
        if table.track != "matched" or protocol == "quick":
            continue
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if cell is not None and cell.accuracies:
                    cells.setdefault((column.key, row.label, protocol), {})[recipe] = cell
    lines = []
    for ((task, *_), mixer, protocol), by_recipe in cells.items():
        plain = by_recipe.get("")
        for recipe, cell in by_recipe.items():
            if recipe:
                without, accuracy = (statistics.fmean(c.accuracies) if c else None for c in (plain, cell))
                lines.append(
                    [
                        f"`{protocol}+{recipe}`",
                        load_task(task).CARD.title,
                        f"`{mixer}`",
                        _with_interval(plain) if plain else "–",
                        _with_interval(cell),
                        f"{100 * (accuracy - without):+.1f}" if without is not None and accuracy is not None else "–",
                    ]
                )
    head = ("protocol", "task", "mixer", "without", "with", "difference")
    return grid(head, (":--", ":--", ":--", "--:", "--:", "--:"), sorted(lines))


def _with_interval(cell: LeaderboardCell) -> str:
    low, high = confidence(cell)
    return f"{percent(statistics.fmean(cell.accuracies))} ({percent(low)} to {percent(high)})"


def family_table() -> str:
    """Return the accuracy of each form of cosFormer under `laptop`, by task and feature map (rows) and decay (columns).

    `–` stands for a form that has no record.
    """
    cells = {
        (column.task, row.label): cell
        for table in board(COMMITTED).tables
        if (table.protocol, table.track) == ("laptop", "matched")
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell is not None and cell.accuracies
    }

    def figure(task: str, **options: str) -> str:
        cell = cells.get((task, mixers.label("cosformer", options)))
        if cell is None:
            return "–"
        return percent(statistics.fmean(cell.accuracies)) + (" at chance" if all(cell.at_chance) else "")

    decays = ("none", "scalar", "vector")
    rows = [
        [load_task(task).CARD.title, f"`{name}`", *(figure(task, feature_map=name, decay=decay) for decay in decays)]
        for task in ("listops", "image")
        for name in FEATURE_MAPS
    ]
    head = ("task", "feature map", *(f"decay `{decay}`" for decay in decays))
    return grid(head, (":--", ":--", "--:", "--:", "--:"), rows)


def task_tables(task: str) -> str:
    """Return the accuracies of a task's trivial baselines on the full variant, and the ranges of published figures."""
    floors = [f.record for f in of_kind(COMMITTED, BaselineRecord) if f.record.column.task == task]
    full = [r for r in floors if base_variant(r.column.variant) in ("full", "copy") and r.test]
    order = (MAJORITY, *load_task(task).CARD.baselines)
    full.sort(key=lambda r: order.index(r.mixer.label))
    baselines = [[r.mixer.label, r.column.source, percent(r.test.accuracy)] for r in full if r.test]
    ranges = []
    for name, protocol in (("table followed by `lra`", "lra"), ("table followed by `small`", "small"), ("all", "")):
        values = [
            figure
            for table in TABLES
            if protocol in ("", table.protocol)
            for row in table.rows
            if isinstance(figure := row.figures.get(task), Decimal)
        ]
        ranges.append([name if protocol else "all sources", str(min(values)), str(max(values))])
    first = grid(("trivial baseline", "data", "test accuracy, %"), (":--", ":--", "--:"), baselines)
    return f"{first}\n\n{grid(('published', 'lowest, %', 'highest, %'), (':--', '--:', '--:'), ranges)}"


def rewritten(page: str, tables: Mapping[str, str]) -> str:
    """Return a page with the tables between `<!-- NAME -->` and `<!-- /NAME -->` replaced."""
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = page.split(start)
        page = f"{before}{start}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    return page


def pages() -> dict[str, tuple[str, str]]:
    """Return by page its text and the text with current tables."""
    results, recipes, tasks = (page.read_text("utf-8") for page in (RESULTS, RECIPES, TASKS_PAGE))
    current = "\n\n".join(f"## {title}\n\n{table}" for title, table in results_tables().items())
    return {
        RESULTS.name: (results, rewritten(results, {"results": current, "family": family_table()})),
        RECIPES.name: (recipes, rewritten(recipes, {"here": recipe_table()})),
        TASKS_PAGE.name: (tasks, rewritten(tasks, {task: task_tables(task) for task in TASKS})),
    }


if __name__ == "__main__":
    for name, (_, text) in pages().items():
        (ROOT / "docs" / name).write_text(text, "utf-8")
