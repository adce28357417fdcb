"""Every record that is written can be read: what reading would refuse is refused before the first step."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import run_lra
from lra import api
from lra.config import TASKS, RunConfig, protocols
from lra.errors import ConfigError
from lra.provenance.code import computing
from lra.provenance.sessions import continued
from lra.record import files
from lra.record.checks import check_record
from lra.run_record import check_readable, make_record
from lra.training.history import History
from lra.training.memory import check_memory
from lra.training.step_functions import StepFunctions
from lra.training.trainer import Outcome
from models import mixers
from tasks import load_task
from tasks.core import Prepared, Split
from tests.lra.conftest import tiny_config

NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 2**31, 2**63, 10**400, 0.0, 1e-300, 1e30, 1e101, math.inf, math.nan]),
    st.integers(-3, 10_000),
    st.floats(),
)  # fmt: skip
FIELDS = [
    f"{part}.{field.name}"
    for part, kind in (("model", "Model"), ("train", "Train"))
    for field in dataclasses.fields(getattr(api.cfg, kind))
]
OPTIONS = [(name, option) for name in mixers.available() for option in mixers.options(mixers.resolve(name).cls)]


def data_of(task: str) -> Prepared:
    card = load_task(task).CARD
    items = np.zeros((2, 2) if card.pairs else 2, np.int32)
    split = Split.from_documents([b"\x01" * 4], [0, 1], items)
    variant = next(iter(card.variants))
    splits = dict.fromkeys(card.variants[variant].sizes, split)
    return Prepared(task, variant, card.version, "somewhere", "5" * 64, splits)


def check_the_record(config: RunConfig) -> None:
    """Check a run of this configuration as before its first step, and read the record of one that diverges."""
    card = load_task(config.task).CARD
    code = computing(config)
    data = dataclasses.replace(data_of(config.task), variant=config.variant)
    name = config.run_id(data.sha256, code.sha256, data.column_variant)
    version = mixers.resolve(config.mixer).version
    make = partial(make_record, name, config, card, data, code, mixer_version=version)
    functions: Any = SimpleNamespace(config=config, parameters=7)
    check_readable(make, functions)
    history = History(config.train.steps)
    record = make(Outcome("diverged", 0, history, 7, message="not a number", sessions=continued((), 0)))
    assert files.parse(files.as_text(record)) == (record, [])
    assert check_record(record, lambda *_: None, [])[0] == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    task=st.sampled_from(TASKS),
    fields=st.dictionaries(st.sampled_from(FIELDS), NUMBERS, max_size=2),
    seed=st.one_of(st.integers(0, 9), NUMBERS),
    limit=st.one_of(st.none(), NUMBERS),
)
@example(task="listops", fields={"train.learning_rate": -1.0}, seed=0, limit=None)
@example(task="listops", fields={"train.learning_rate": 1e300}, seed=0, limit=None)
@example(task="listops", fields={"train.steps": 2**63}, seed=0, limit=None)
@example(task="listops", fields={}, seed=2**64, limit=None)
def test_a_setting_is_refused_or_its_record_can_be_read(task: str, fields: Any, seed: Any, limit: Any) -> None:
    protocol = next(iter(protocols(task)))
    with contextlib.suppress(ConfigError):
        check_the_record(api.configure(task, "cosformer", protocol=protocol, seed=seed, limit=limit, overrides=fields))


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(option=st.sampled_from(OPTIONS), value=st.one_of(NUMBERS, st.booleans(), st.text(max_size=8)))
@example(option=("local", "window"), value=10**101)
def test_an_option_is_refused_or_its_record_can_be_read(option: tuple[str, str], value: Any) -> None:
    mixer, name = option
    with contextlib.suppress(ConfigError):
        check_the_record(api.configure("listops", mixer, protocol="small", options={name: value}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.learning_rate": -1.0}, r"train\.learning_rate is -1\.0: input should be greater than 0"),
        ({"train.learning_rate": 1e300}, r"train\.learning_rate is 1e\+300: input should be less than 1e\+31"),
        ({"train.learning_rate": math.nan}, r"train\.learning_rate is nan: "),
        ({"train.weight_decay": -0.1}, r"train\.weight_decay is -0\.1: "),
        ({"train.b2": 1.0}, r"train\.b2 is 1\.0: input should be less than 1"),
        ({"train.b1": 0.05}, r"train\.b1 is 0\.05; the schedule onecycle lowers it by 0\.1"),
        ({"train.eps": 0.0}, r"train\.eps is 0\.0: input should be greater than 0"),
        ({"train.warmup": -1}, r"train\.warmup is -1: "),
        ({"train.schedule": "rsqrt", "train.warmup": 0}, r"train\.warmup is 0, but the schedule rsqrt divides by it"),
        ({"model.embed_std": -1.0}, r"model\.embed_std is -1\.0: "),
        ({"model.head": (0,)}, r"model\.head\[0\] is 0: "),
        ({"model.pair": "nli"}, r"model\.pair is nli; on listops it must be none"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_before_anything_is_done(overrides: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        api.configure("listops", "cosformer", protocol="small", overrides=overrides)


@pytest.mark.parametrize("minutes", ["-1", "0", "nan"])
@pytest.mark.parametrize("command", ["train --task listops --mixer linear", "suite --protocol quick"])
def test_a_time_limit_is_above_zero(command: str, minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lra.main([*command.split(), "--max-minutes", minutes]) == 1
    assert capsys.readouterr().err == f"error: --max-minutes {minutes}: must be more than 0\n"


def test_retrieval_needs_a_way_to_combine_its_documents() -> None:
    with pytest.raises(ConfigError, match=r"model\.pair is None; on retrieval it must be concat or nli"):
        api.configure("retrieval", "cosformer", protocol="small", overrides={"model.pair": None})


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    config = tiny_config(max_len=2 * 10**9)
    functions = StepFunctions(config, load_task("listops").CARD)
    with pytest.raises(ConfigError, match=r"needs at least [\d,.]+ GiB of memory, and .* max_len is 2,000,000,000"):
        check_memory(functions)
    check_memory(StepFunctions(tiny_config(), load_task("listops").CARD))


def test_a_record_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    config = api.configure("listops", "cosformer", protocol="small")
    config = dataclasses.replace(config, mixer_options={"eps": 1e101})
    with pytest.raises(ConfigError, match=r"could not be read again: config\.mixer_options\.eps is 1e\+101,"):
        check_the_record(config)
