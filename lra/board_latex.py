"""A leaderboard as LaTeX tables for a paper, with the rules of the package booktabs."""

from __future__ import annotations

from lra.board import Board, Cell, Row, Table
from lra.board_text import clean, heading, legend, nothing, percent

NONE = "--"
SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "≈": r"$\approx$",
    "▽": r"$\triangledown$",
    "±": r"$\pm$",
    "–": "--",
}


def as_latex(board: Board) -> str:
    """One `table` for each table of the board that has rows: mean and deviation, the best of each column bold.

    Runs that were stopped are left out. It needs \\usepackage{booktabs,amssymb}.
    """
    tables = [_table(t, legend(board)[0]) for t in board.tables if t.rows]
    return "\n\n".join(tables) if tables else f"% {clean(nothing(board))}"


def latex(value: object) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(SPECIAL.get(c, c) for c in clean(value))


def _table(t: Table, unit: str) -> str:
    heads = [heading(c, t.beside) for c in t.columns]
    mean = any(r.mean is not None for r in t.rows)
    columns = zip(*(r.cells for r in t.rows), strict=True)
    best = [max((c.mean or -1.0 for c in column if c is not None), default=-1.0) for column in columns]
    best_mean = max((r.mean for r in t.rows if r.mean is not None), default=None)
    titles = [f"{latex(title)}" for title, _, _ in heads] + ["Mean"] * mean
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{latex(t.label)}. {latex(unit)} {_sources(heads)}}}",
        f"  \\begin{{tabular}}{{l{'r' * len(titles)}}}",
        r"    \toprule",
        _line(["Mixer", *titles]),
        r"    \midrule",
    ]
    for row in t.rows:
        cells = [_cell(cell, b) for cell, b in zip(row.cells, best, strict=True)]
        lines.append(_line([_name(row), *cells, *[_bold(percent(row.mean), row.mean == best_mean)] * mean]))
    lines.append(r"    \midrule")
    for floor in t.floors:
        values = [latex(percent(a)) for a in floor.accuracies] + [latex(percent(floor.mean))] * mean
        lines.append(_line([f"\\emph{{{latex(floor.name)}}}", *values]))
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _sources(heads: list[tuple[str, str, str]]) -> str:
    return latex("; ".join(f"{title}: {variant}, {source}" for title, variant, source in heads)) + "."


def _line(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _name(row: Row) -> str:
    return latex(", ".join([row.label, *row.changes]))


def _cell(cell: Cell | None, best: float) -> str:
    if cell is None:
        return NONE
    if cell.mean is None:
        return "diverged"
    text = _bold(percent(cell.mean), cell.mean == best)
    if cell.deviation is not None:
        text += f" $\\pm$ {100 * cell.deviation:.1f}"
    return text + r"$^{\approx}$" * (cell.at_chance == len(cell.accuracies))


def _bold(text: str, best: bool) -> str:
    return f"\\textbf{{{text}}}" if best else latex(text)
