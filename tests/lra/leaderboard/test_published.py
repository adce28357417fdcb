"""Published accuracies: averages follow their rules, exceptions are listed, and slips of the files are reported."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from lra import config as cfg
from lra.leaderboard.published import ACCURACY, AVERAGES, FIVE, Accuracy, Missing, Row, accuracy
from models import mixers
from tests.labels import parsed

COMPARED = [table for table in accuracy() if table.protocol]


def table(start: str) -> Accuracy:
    (found,) = (t for t in accuracy() if t.source.startswith(start))
    return found


def row(start: str, name: str) -> Row:
    (found,) = (r for r in table(start).rows if r.name == name)
    return found


def half_a_digit(value: Decimal) -> Decimal:
    return Decimal(1).scaleb(int(value.as_tuple().exponent)) / 2


def test_every_average_is_the_mean_that_its_rule_names() -> None:
    """Of figures rounded as printed, the mean is at most that far from the average."""
    slips, unchecked = {}, set()
    for t in accuracy():
        for r in t.rows:
            if not isinstance(r.average, Decimal):
                continue
            given = [value for value in r.figures.values() if isinstance(value, Decimal)]
            if not given:
                unchecked.add(r.name)
                continue
            mean = AVERAGES[t.averaging](r.figures)
            tolerance = half_a_digit(r.average) + sum(map(half_a_digit, given)) / len(given)
            if abs(mean - r.average) > tolerance:
                slips[r.name] = (float(r.average), round(float(mean), 2))
    assert slips == {  # printed, and the mean of the printed figures; the note of each table says it
        "Sinkhorn": (51.29, 51.48),
        "LION-S without HiPPO": (53.0, 53.80),
        "LION-D": (85.63, 85.68),
        "LION-S": (86.07, 86.02),
        "S5, run again": (87.04, 87.06),
        "RWKV-4": (72.07, 71.84),
    }
    for name, (_, mean) in slips.items():
        (note,) = {t.note for t in accuracy() for r in t.rows if r.name == name}
        assert f"{mean:.2f}" in note, name
    assert unchecked == {  # the source of the average gives no figures
        *("SPADE", "BST", "Transformer + RoPE + masked self-pretraining"),
        *("Transformer + RoPE + training techniques", "Transformer + RoPE"),
    }


def test_one_row_three_averages() -> None:
    """The averages of cosFormer by OpenNLPLab, without Path-X, differ by ten points from rule to rule."""
    figures = row("OpenNLPLab", "cosFormer").figures
    assert figures["pathx"] is Missing.NOT_GIVEN
    failed = {**figures, "pathx": Missing.FAILED}
    assert float(AVERAGES["5-task mean"](figures)) == pytest.approx((36.50 + 67.70 + 83.15 + 51.23 + 71.96) / 5)
    assert float(AVERAGES["6-task mean, a failure counted as chance (50)"](failed)) == pytest.approx(60.09, abs=0.01)
    assert float(AVERAGES["6-task mean, what is missing counted as 0"](figures)) == pytest.approx(51.76, abs=0.01)
    assert AVERAGES["mean of what is given"](figures) == AVERAGES["5-task mean"](figures)
    for rule in ("6-task mean", "6-task mean, a failure counted as chance (50)", "not stated"):
        with pytest.raises(ValueError, match="not defined"):
            AVERAGES[rule](figures)


def test_failed_and_not_given_differ() -> None:
    assert row("RTF", "SpaceTime").figures["pathx"] is Missing.FAILED
    assert row("xLSTM", "xLSTM").figures["pathx"] is Missing.NOT_GIVEN
    assert row("RTF", "SpaceTime").text("pathx") == "X"
    assert row("xLSTM", "xLSTM").text("text") == "–"
    assert row("xLSTM", "xLSTM").average_text == "–"


def test_figures_have_the_digits_and_the_deviations_of_the_source() -> None:
    assert row("LSSO", "LSSO").text("listops") == "37.60±0.65"
    assert row("LSSO", "LSSO").text("image") == "–"
    assert row("FlashAttention", "Transformer").text("listops") == "36.0"
    assert row("IGLOO", "IGLOO").text("text") == "82"
    assert row("SPADE", "SPADE").average_text == "87.40"


def test_the_best_published_average() -> None:
    averages = {r.average: r.name for t in accuracy() for r in t.rows if isinstance(r.average, Decimal)}
    assert averages[max(averages)] == "MEGALODON"
    assert max(averages) == Decimal("88.63")


def test_the_two_rows_of_mamba_contradict_each_other() -> None:
    theirs, others = (row("xLSTM", f"Mamba, run by {who}'s authors").figures for who in ("xLSTM", "HGRN2"))
    assert others == row("OpenNLPLab", "Mamba").figures
    gaps = {task: float(theirs[task]) - float(others[task]) for task in ("retrieval", "pathfinder")}
    assert gaps == pytest.approx({"retrieval": 18.06, "pathfinder": 29.94})


def test_rows_that_must_not_be_compared_say_so() -> None:
    marked = {r.name for t in accuracy() for r in t.rows if "Not comparable" in r.note + t.note}
    assert marked == {
        *("HGRN1", "HGRN2", "LRU"),
        *("Transformer + RoPE + training techniques", "Transformer + RoPE"),
        *("Transformer + causal self-pretraining", "Transformer + RoPE + masked self-pretraining"),
    }


def test_every_compared_source_has_a_protocol_of_every_task() -> None:
    assert {t.protocol for t in COMPARED} == {"lra", "small"}
    for t in COMPARED:
        assert t.columns == FIVE
        assert [cfg.protocol(task, t.protocol).name for task in t.columns] == [t.protocol] * 5


def test_a_row_has_a_form_on_every_task_or_says_why_not() -> None:
    for t in COMPARED:
        for r in t.rows:
            assert set(r.labels) in (set(t.columns), set()), r.name
            assert bool(r.labels) != r.note.startswith("Reported elsewhere: "), r.name
    assert [r.name for t in COMPARED for r in t.rows if not r.labels] == ["cosFormer", "Linformer", "Informer"]


def test_a_figure_is_found_by_its_form_alone() -> None:
    paper = table("cosFormer")
    assert paper.reported("performer(features=2, redraw=True)", "listops") == Decimal("18.01")
    assert paper.reported("performer(features=2, redraw=True)", "text") is None  # there it ran without features
    assert paper.reported("performer(kernel=relu, features=0)", "text") == Decimal("65.40")
    assert paper.reported("performer", "text") is None
    assert paper.reported("cosformer", "retrieval") is None  # its hyper-parameters are not published
    assert paper.reported("softmax", "pathx") is None
    assert table("Skyformer").reported("skyformer(kind=kernelized)", "image") == Decimal("41.29")


@pytest.mark.parametrize("t", COMPARED, ids=lambda t: t.protocol)
@pytest.mark.parametrize("task", FIVE)
def test_an_expected_score_is_the_published_one(t: Accuracy, task: str) -> None:
    of_cosformer = next((r.figures[task] for r in t.rows if r.name == "cosFormer"), None)  # its form is not published
    for label, expected in cfg.protocol(task, t.protocol).expected.items():
        figure = of_cosformer if label == "cosformer" else t.reported(label, task)
        assert expected.score == float(figure), label


@pytest.mark.parametrize("t", COMPARED, ids=lambda t: t.protocol)
def test_the_forms_of_a_protocol_are_those_of_its_source(t: Accuracy) -> None:
    """Every form of a protocol has the label of a row; every row with options is the form of its mixer.

    A mixer has one form. Where a source has two rows of a mixer, one of them without options, that one is meant by
    the mixer's name, and the other is reached by its options. Skyformer's Linformer has the rank of its source, and
    is compared with nothing, because the source never trains its projections.
    """
    for task in t.columns:
        forms = {name: mixers.label(name, form.options) for name, form in cfg.protocol(task, t.protocol).forms.items()}
        labels = {r.labels[task] for r in t.rows if task in r.labels}
        assert set(forms.values()) - {"linformer(rank=128)"} <= labels
        assert {label for label in labels if parsed(label)[1] and parsed(label)[0] not in labels} <= set(forms.values())


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[37.90, 63.41, ", "[37.90, ", "cosFormer is not one figure for each of 5 tasks"),
        ('averaging = "5-task mean"', 'averaging = "mean"', "no rule 'mean'; the rules are 5-task mean"),
        ('averaging = "5-task mean"\n', "", "averaging"),
        ('"Linear Trans." = "linear"', '"Lineal Trans." = "linear"', "labels of rows that do not exist: Lineal Trans."),
        ('listops = "performer(', 'listop = "performer(', "labels of tasks that are no columns: listop"),
        ('"Linear Trans." = "linear"', '"Linear Trans." = "softmax"', "two rows have the same label on listops"),
        ('protocol = "lra"\n', "", "labels without a protocol"),
        ("37.90", "-37.90", "-37.90 is neither a percentage nor 'X' or '-'"),
        ("37.90", "3790", "3790 is neither a percentage"),
        ("37.90", "nan", "NaN is neither a percentage"),
        ("37.90", '"OOM"', "'OOM' is neither a percentage"),
        ('family = "LRA', 'colour = "red"\nfamily = "LRA', "colour"),
    ],
)
def test_a_slip_is_reported(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = ACCURACY[0].read_text()
    assert before in text
    (tmp_path / "protocols.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(ValueError, match=message):
        accuracy([tmp_path / "protocols.toml"])
