"""Tables for a paper: the board's numbers, and nothing of a record that LaTeX would obey."""

from __future__ import annotations

import re

from lra.leaderboard.build import board, render
from tests.lra.leaderboard.test_leaderboard import run, trivial


def test_a_table_of_booktabs() -> None:
    found = [
        run(0.38, seed=0),
        run(0.40, seed=1),
        run(0.35, mixer="softmax"),
        run(None, mixer="fnet"),
        trivial(0.36),
    ]
    result = str(render(board(found), "latex"))
    rules = [line.strip() for line in result.splitlines() if "rule" in line]
    assert rules == [r"\toprule", r"\midrule", r"\midrule", r"\bottomrule"]
    rows = {line.split("&")[0].strip(): line.strip() for line in result.splitlines() if "&" in line}
    assert rows["cosformer"] == r"cosformer & \textbf{39.0} $\pm$ 1.4 (2) \\"
    assert rows["softmax"] == r"softmax & 35.0$^{\triangledown}$ \\"
    assert rows["fnet"] == r"fnet & diverged \\"
    assert rows[r"\emph{root operator}"] == r"\emph{root operator} & 36.0 \\"
    assert "quick@2" in result
    assert "generated, seed 1806" in result
    assert result.count("{") == result.count("}")


def test_nothing_of_a_record_is_obeyed() -> None:
    hostile = r"\input{/etc/passwd} $x^2$ 100%_#&~{}"
    result = str(render(board([run(0.5, mixer=hostile, source=hostile)]), "latex"))
    assert r"\input" not in result
    assert r"\textbackslash{}input\{/etc/passwd\} \$x\textasciicircum{}2\$ 100\%\_\#\&\textasciitilde{}\{\}" in result
    (row,) = (line for line in result.splitlines() if "50.0" in line)
    assert len(re.findall(r"(?<!\\)&", row)) == 1


def test_a_board_without_rows_is_a_comment() -> None:
    assert str(render(board([]), "latex")).startswith("% No results")
