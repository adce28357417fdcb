"""Published accuracies: every average is what its rule gives, and a slip of the file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lra.published import AVERAGES, PUBLISHED, accuracy
from models import mixers


def test_every_average_is_the_mean_that_its_rule_names() -> None:
    slips = {
        (table.source.partition(" ")[0], name): table.averages[name]
        for table in accuracy()
        for name, row in table.rows.items()
        if abs(AVERAGES[table.averaging](row) - table.averages[name]) > 0.0101
    }
    assert slips == {("cosFormer", "Sinkhorn"): 51.29}  # of the source; the file says so


def test_one_row_three_averages() -> None:
    """cosFormer by OpenNLPLab, whose Path-X failed: ten points lie between rules."""
    row = next(t for t in accuracy() if "HGRN2" in t.source).rows["cosFormer"]
    assert row[-1] is None
    assert AVERAGES["5-task mean"](row[:5]) == pytest.approx(62.11, abs=0.01)
    assert AVERAGES["6-task mean, a failure counted as chance (50)"](row) == pytest.approx(60.09, abs=0.01)
    assert AVERAGES["6-task mean, a failure counted as 0"](row) == pytest.approx(51.76, abs=0.01)
    with pytest.raises(ValueError, match="not all there"):
        AVERAGES["6-task mean"](row)


def test_the_table_of_the_cosformer_paper_is_whole() -> None:
    (paper,) = (t for t in accuracy() if "2202.08791" in t.source)
    assert paper.protocol == "lra"
    assert len(paper.rows) == len(paper.mixers) == 12
    assert set(paper.mixers.values()) <= set(mixers.available())
    assert paper.reported("cosformer", "retrieval") == 61.36
    assert paper.reported("fnet", "retrieval") is None


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("[37.90, 63.41, ", "[37.90, ", "cosFormer is not a figure for each of 5 tasks"),
        ('averaging = "5-task mean"', 'averaging = "mean"', "no rule 'mean'; there are 5-task mean"),
        ('"cosFormer" = "cosformer"', '"cosFromer" = "cosformer"', "there are no rows cosFromer"),
        ("37.90", "-37.90", "-37.9 is neither a positive number nor"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, before: str, after: str, told: str) -> None:
    text = PUBLISHED.read_text()
    assert before in text
    (tmp_path / "published.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(ValueError, match=told):
        accuracy(tmp_path / "published.toml")
