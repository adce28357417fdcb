"""Overrides and options of any kind: taken as they are, or refused by name; nothing in them is evaluated."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lra import config as cfg
from lra.config import Model, RunConfig, Train
from lra.errors import ConfigError
from models import mixers

T = TypeVar("T")
BASES = [base for task in cfg.TASKS for base in cfg.protocols(task).values()]
PLACES = {"max_len": int, "variant": str}
PLACES |= {f"model.{name}": hint for name, hint in typing.get_type_hints(Model).items()}
PLACES |= {f"train.{name}": hint for name, hint in typing.get_type_hints(Train).items()}
ODD = (
    None,
    True,
    1,
    0,
    -1,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    "1",
    "mean",
    b"1",
    (1,),
    [1],
    (1, "2"),
    {},
    object(),
)
OTHER_TYPE = ": input should be (?!greater|less)"
EVIL = "__import__('os').abort()"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(EVIL),
    lambda inside: (
        st.lists(inside, max_size=2).map(tuple)
        | st.lists(inside, max_size=2)
        | st.dictionaries(st.text(max_size=2), inside, max_size=2)
    ),
    max_leaves=3,
)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, once more: bool is no number, and numbers are finite."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is Literal:
        return value.__class__ is str and value in inside
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(v, inside[0]) for v in value)
    if hint is float:
        return value.__class__ in (int, float) and -1e308 < value < 1e308
    return value.__class__ is hint


def of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field that are of its type, and in their bounds nearly always."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(map(of, inside))
    if origin is Literal:
        return st.sampled_from(inside)
    if origin is tuple:
        return st.lists(of(inside[0]), max_size=3).map(tuple)
    plain = {
        int: st.sampled_from([1, 2, 4, 8, 64]),
        float: st.floats(0, 0.9),
        bool: st.booleans(),
        str: st.text(max_size=9),
    }
    return plain[hint] if hint in plain else st.none()


OVERRIDES = st.dictionaries(st.sampled_from(sorted(PLACES)), st.none(), max_size=4).flatmap(
    lambda chosen: st.fixed_dictionaries({place: of(PLACES[place]) for place in chosen})
)


def resolve(base: cfg.Protocol, overrides: dict[str, Any], **changes: Any) -> cfg.RunConfig:
    named: dict[str, Any] = {"mixer": "m", "mixer_label": "m", "mixer_options": {}, "mixer_sha256": None}
    return cfg.resolve(base, **{**named, "task_version": 1, "seed": 0, **changes}, overrides=overrides)


def tried(call: Callable[[], T], error: type[Exception] = ConfigError) -> T | Exception:
    """What it returns or, if it is the error that is declared, raises."""
    try:
        return call()
    except error as raised:
        return raised


def at(config: Any, place: str) -> Any:
    for name in place.split("."):
        config = getattr(config, name)
    return config


@given(st.sampled_from(BASES), OVERRIDES, st.integers(0, 2**32 - 1), st.none() | st.integers(1, 9))
def test_overrides_are_there_and_can_be_told_again(
    base: cfg.Protocol, overrides: dict[str, Any], seed: int, limit: int | None
) -> None:
    config = tried(lambda: resolve(base, overrides, seed=seed, limit=limit))
    if isinstance(config, Exception):
        assert any(place in str(config) for place in overrides)
        return
    for place in PLACES:
        assert at(config, place) == overrides.get(place, at(base, place))
    departing = {k: v for k, v in overrides.items() if v != at(base, k)}
    message = cfg.differences(config, base)
    assert message == departing
    assert resolve(base, message, seed=seed, limit=limit) == config
    again = RunConfig.from_text(config.as_text())
    assert again == config
    assert again.sha256 == config.sha256
    counted = {f"train.{f.name}" for f in dataclasses.fields(Train) if not f.metadata.get("unhashed")}
    counted |= {place for place in PLACES if not place.startswith("train.")}
    same = not (departing.keys() & counted)
    assert config.modified == (not same or limit is not None)
    assert (config.sha256 == resolve(base, {}, seed=seed, limit=limit).sha256) == same


@pytest.mark.parametrize("place", PLACES)
def test_nothing_odd_has_a_place(place: str) -> None:
    for value in ODD:
        config = tried(lambda value=value: resolve(BASES[0], {place: value}))
        if fits(value, PLACES[place]):
            assert not re.search(OTHER_TYPE, str(config))
        else:
            assert isinstance(config, ConfigError)
            assert re.match(rf"{place}(\[\d+\])? is .*{OTHER_TYPE}", str(config), re.S)


@given(st.sampled_from(BASES), st.sampled_from(sorted(PLACES)), ANYTHING)
def test_a_value_of_another_type_is_refused_by_name(base: cfg.Protocol, place: str, value: Any) -> None:
    if fits(value, PLACES[place]):
        config = tried(lambda: resolve(base, {place: value}))
        assert place in str(config) if isinstance(config, Exception) else at(config, place) == value
    else:
        with pytest.raises(ConfigError, match=rf"(?s)^{place}(\[\d+\])? is .*{OTHER_TYPE}"):
            resolve(base, {place: value})


@given(
    st.sampled_from(BASES),
    st.text(max_size=12) | st.sampled_from([*PLACES, "seed", "source", EVIL]),
    st.text(max_size=6),
)
def test_what_cannot_be_overridden_is_refused_by_name(base: cfg.Protocol, place: str, more: str) -> None:
    for path in (place, f"{place}.{more}", f"model.{more}", f"train.{more}"):
        if path not in PLACES:
            refused = tried(lambda path=path: resolve(base, {path: 1}))
            assert isinstance(refused, ConfigError)
            assert repr(path) in str(refused) or str(refused).startswith(f"{path} is 1: input should be")


@given(
    st.dictionaries(st.sampled_from([*(f.name for f in dataclasses.fields(cfg.RunConfig)), "x"]), ANYTHING, max_size=3)
)
def test_a_file_of_any_fields_is_a_configuration_or_refused(fields: dict[str, Any]) -> None:
    whole = json.loads(resolve(BASES[0], {}).as_text())
    config = tried(lambda: RunConfig.from_text(json.dumps({**whole, **fields})))
    if isinstance(config, Exception):
        return
    for field, hint in typing.get_type_hints(cfg.RunConfig).items():
        assert fits(getattr(config, field), hint) or field in ("model", "train", "mixer_options")
    assert config.sha256


CLASSES = [mixers.resolve(name).cls for name in ("bigbird", "performer", "s4d")]
WANTED = [(cls, name) for cls in CLASSES for name in mixers.options(cls)]


@given(st.sampled_from(WANTED), st.text(max_size=8) | ANYTHING.map(str) | st.just(EVIL))
@settings(max_examples=200)
def test_an_option_is_of_its_type_or_refused_by_name(wanted: tuple[type, str], text: str) -> None:
    cls, name = wanted
    parsed = tried(lambda: mixers.parse_options(cls, [f"{name}={text}"]), ValueError)
    if isinstance(parsed, Exception):
        assert f"option {name}=" in str(parsed)
        return
    hint, value = mixers.options(cls)[name].annotation, parsed[name]
    assert fits(value, hint) or (isinstance(value, float) and float in (hint, *typing.get_args(hint)))
    assert mixers.parse_options(cls, [f"{name}={value}"]) == parsed or value != value  # nan
