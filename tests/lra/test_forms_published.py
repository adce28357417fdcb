"""The forms of the protocols are those of the rows that they are compared with."""

from __future__ import annotations

import pytest

from lra import config as cfg
from lra.published import FIVE, accuracy
from models import mixers

# Linformer's projections in Skyformer's code are shared by keys and values, one for each head, and never trained: no
# option expresses that, so its row is compared with nothing.
NOT_COMPARED = {"small": {"linformer(rank=128)"}, "lra": set()}
COMPARED = {table.protocol: table for table in accuracy() if table.protocol}


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("task", FIVE)
def test_a_mixer_named_without_options_runs_in_its_published_form(name: str, task: str) -> None:
    forms = cfg.protocol(task, name).forms
    published = {row.labels[task] for row in COMPARED[name].rows if task in row.labels}
    labels = {mixers.label(mixer, form.options) for mixer, form in forms.items()} - NOT_COMPARED[name]
    plain = {label for label in published if label == "softmax" or mixer_of(label) not in forms}
    assert labels | plain == published
    assert all(label in (*mixers.available(), "skyformer(kind=kernelized)") for label in plain)


def mixer_of(label: str) -> str:
    return label.partition("(")[0]


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("task", FIVE)
def test_an_expected_score_is_the_published_one(name: str, task: str) -> None:
    for label, expected in cfg.protocol(task, name).expected.items():
        figure = COMPARED[name].reported(label, task)
        if label == "cosformer":  # its form is not published
            row = next(row for row in COMPARED["lra"].rows if row.name == "cosFormer")
            figure = row.figures[task]
        assert figure is not None
        assert expected.score == float(figure), label
