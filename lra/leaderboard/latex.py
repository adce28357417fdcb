"""A leaderboard as LaTeX tables for a paper, with the rules of the package booktabs."""

from __future__ import annotations

from lra.leaderboard.text import (
    ORIGINS,
    cell_marks,
    cell_notes,
    cell_text,
    clean,
    heading,
    mark_sentences,
    nothing,
    percent,
    retired_line,
)
from lra.leaderboard.types import Board, LeaderboardCell, Row, Table

NONE = "--"
SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "≈": r"$\approx$",
    "≡": r"$\equiv$",
    "▽": r"$\triangledown$",
    "†": r"$\dagger$",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "–": "--",
}
BOLD = (
    "Bold: the best row of a column, chosen among rows with several seeds where there are any, and rows that are not "
    "significantly different from it."
)
BOLD_ORIGINS = "Rows of different origin are not compared."


def as_latex(board: Board) -> str:
    """Return one `table` for each table of the board that has rows, with the marks of the board and their meanings.

    Runs that were stopped are left out. It needs \\usepackage{booktabs,amssymb}.
    """
    tables = [_table(t) for t in board.tables if t.rows] or [f"% {clean(nothing(board))}"]
    return "\n\n".join(tables + ([f"% {clean(retired_line(board))}"] if board.retired else []))


def latex(value: object) -> str:
    """Return text that LaTeX prints as it stands."""
    return "".join(SPECIAL.get(c, c) for c in clean(value))


def _table(t: Table) -> str:
    heads = [heading(c, t.beside) for c in t.columns]
    mean = any(r.mean is not None for r in t.rows)
    titles = [latex(title) for title, _, _ in heads] + ["Mean"] * mean
    origins = [origin for origin in ORIGINS if any(r.origin == origin for r in t.rows)]
    caption = [t.label + ".", *mark_sentences(t.rows), BOLD, *[BOLD_ORIGINS] * (len(origins) > 1)]
    caption.append("; ".join(f"{title}: {variant}, {source}" for title, variant, source in heads) + ".")
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{latex(' '.join(caption))}}}",
        f"  \\begin{{tabular}}{{l{'r' * len(titles)}}}",
        r"    \toprule",
        _line(["Mixer", *titles]),
    ]
    for origin in origins:
        lines.append(r"    \midrule")
        if len(origins) > 1:
            lines.append(_line([f"\\multicolumn{{{len(titles) + 1}}}{{l}}{{{origin}}}"]))
        for row in (r for r in t.rows if r.origin == origin):
            lines.append(_line([_name(row), *map(_cell, row.cells), *[latex(percent(row.mean))] * mean]))
    lines.append(r"    \midrule")
    for baseline in t.baselines:
        values = [latex(percent(a)) for a in baseline.accuracies] + [latex(percent(baseline.mean))] * mean
        lines.append(_line([f"\\emph{{{latex(baseline.name)}}}", *values]))
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _line(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _name(row: Row) -> str:
    return latex(", ".join([row.label, *row.changes]))


def _cell(cell: LeaderboardCell | None) -> str:
    """Return a cell as `\\textbf{36.5} $\\pm$ 0.5 (3)$^{\\triangledown}$`."""
    if cell is None or cell.mean is None:
        return NONE if cell is None else latex(cell_text(cell))
    text = percent(cell.mean)
    if cell.comparison.verdict in ("best", "not significantly different"):
        text = f"\\textbf{{{text}}}"
    if cell.deviation is not None:
        text += f" $\\pm$ {100 * cell.deviation:.1f}"
    if notes := cell_notes(cell):
        text += f" ({latex(', '.join(notes))})"
    marks = "".join(latex(mark).strip("$") for mark in cell_marks(cell))
    return text + (f"$^{{{marks}}}$" if marks else "")
