"""A leaderboard as LaTeX tables for a paper, with the rules of the package booktabs."""

from __future__ import annotations

from lra.leaderboard.legend import mark_sentences
from lra.leaderboard.table import BASELINE, ORIGINS, FormattedCell, FormattedTable, scores
from lra.leaderboard.text import clean, nothing, retired_line, table_headings
from lra.leaderboard.types import Board

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
    titled = zip(board.tables, table_headings(board.tables), strict=True)
    tables = [_table(title, scores(t)) for t, title in titled if t.rows] or [f"% {clean(nothing(board))}"]
    return "\n\n".join(tables + ([f"% {clean(retired_line(board))}"] if board.retired else []))


def latex(value: object) -> str:
    """Return text with the special characters of LaTeX escaped."""
    return "".join(SPECIAL.get(c, c) for c in clean(value))


def _table(label: str, table: FormattedTable) -> str:
    origins = [origin for origin in ORIGINS if any(row.origin == origin for row in table.rows)]
    caption = [f"{label}.", *mark_sentences([cell for row in table.rows for cell in row.cells]), BOLD]
    caption += [BOLD_ORIGINS] * (len(origins) > 1)
    caption.append(
        "; ".join(f"{title}: {variant}, {source}" for title, variant, source in table.heads if variant) + "."
    )
    columns = len(table.heads)
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{latex(' '.join(caption))}}}",
        f"  \\begin{{tabular}}{{l{'r' * columns}}}",
        r"    \toprule",
        _line(["Mixer", *(latex(title) for title, _, _ in table.heads)]),
    ]
    for origin in (*origins, BASELINE):
        lines.append(r"    \midrule")
        if len(origins) > 1 and origin != BASELINE:
            lines.append(_line([f"\\multicolumn{{{columns + 1}}}{{l}}{{{origin}}}"]))
        for row in (row for row in table.rows if row.origin == origin):
            name = latex(", ".join([row.name, *row.changes]))
            lines.append(_line([f"\\emph{{{name}}}" if origin == BASELINE else name, *map(_cell, row.cells)]))
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _line(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _cell(cell: FormattedCell) -> str:
    """Return a cell as `\\textbf{36.5} $\\pm$ 0.5 (3)$^{\\triangledown}$`."""
    text = latex(cell.number)
    if cell.cell and cell.cell.comparison.verdict in ("best", "not significantly different"):
        text = f"\\textbf{{{text}}}"
    text += f" $\\pm$ {cell.deviation}" if cell.deviation else ""
    text += f" ({latex(', '.join(cell.notes))})" if cell.notes else ""
    marks = "".join(latex(mark).strip("$") for mark in cell.marks)
    return text + (f"$^{{{marks}}}$" if marks else "")
