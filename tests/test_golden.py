"""Every recorded setting of protocols, tasks and mixers is unchanged, and a change of one needs a new version."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import golden
from tests.golden import KINDS, Settings


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_as_recorded(kind: str) -> None:
    """Where a change is meant: raise the version of the protocol, task or mixer, then run `python -m tests.golden`."""
    recorded, current = golden.read(kind), KINDS[kind].current()
    advice = "; where a number that affects results is meant to change, raise its version; then run " + golden.COMMAND
    changed = [
        f"{name}: {place} is recorded as {before!r} and is {after!r}"
        for (name, place), (before, after) in golden.differences(recorded, current).items()
    ]
    assert not changed, "\n".join(changed) + advice


def edited(settings: Settings, place: str, value: Any, version: int = 0) -> Settings:
    """Return a copy of one entry's settings with another value, and its version raised by `version`."""
    changed = copy.deepcopy(settings)
    name, *groups, last = place.split("/")
    entry = inner = changed[name]
    for group in groups:
        inner = inner.setdefault(group, {})
    if value is golden.MISSING:
        del inner[last]
    else:
        inner[last] = value
    entry["version"] += version
    return changed


CHANGES = [
    ("protocols", "listops laptop/train/learning_rate", 1e-4),
    ("protocols", "text lra/train/steps", 10_000),
    ("protocols", "image lra/model/dropout", 0.2),
    ("protocols", "image lra/model/head", [64]),
    ("protocols", "image quick/max_len", 128),
    ("protocols", "image quick/variant", "full"),
    ("protocols", "image quick/source", None),
    ("protocols", "image quick/model/bias", golden.MISSING),
    ("protocols", "image quick/forms/performer/options/kernel", "relu"),
    ("tasks", "text/vocab_size", 256),
    ("tasks", "text/classes", ["pos", "neg"]),
    ("tasks", "text/selection", "validation"),
    ("tasks", "image/variants/16/sizes/test", 2_000),
    ("tasks", "image/variants/16/max_bytes", 1_024),
    ("mixers", "local/options/window", 64),
]


@pytest.mark.parametrize(("kind", "place", "value"), CHANGES)
def test_a_changed_setting_needs_a_new_version(kind: str, place: str, value: Any) -> None:
    recorded = KINDS[kind].current()
    assert golden.refused(KINDS[kind], recorded, recorded) == []
    (line,) = golden.refused(KINDS[kind], recorded, edited(recorded, place, value))
    name, *groups = place.split("/")
    assert line.startswith(f"{name}: {'.'.join(groups)} was ")
    assert golden.refused(KINDS[kind], recorded, edited(recorded, place, value, version=1)) == []


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("protocols", "listops lra/train/micro_batch", 4),  # how a run is executed
        ("protocols", "listops lra/expected/softmax/score", 36.0),
        ("protocols", "listops lra/model/norm_scale", 0.5),  # a new field, with a default that changes nothing
        ("tasks", "image/variants/64/sizes/test", 10),  # a new variant is a column of its own
        ("mixers", "local/options/colour", 1),
        ("mixers", "local/complexity", ["L", "1"]),
    ],
)
def test_what_affects_no_result_needs_none(kind: str, place: str, value: Any) -> None:
    recorded = KINDS[kind].current()
    changed = edited(recorded, place, value)
    assert golden.refused(KINDS[kind], recorded, changed) == []
    ((key, (_, after)),) = golden.differences(recorded, changed).items()  # it is recorded all the same
    assert "/".join(key).replace(".", "/") == place
    assert after == value


def test_a_version_never_falls() -> None:
    recorded = KINDS["tasks"].current()
    (line,) = golden.refused(KINDS["tasks"], recorded, edited(recorded, "text/metric", "accuracy", version=-1))
    version = recorded["text"]["version"]
    assert line.startswith(f"text: version was {version}, is {version - 1}")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Golden files of one's own; the function that changes what the code is said to have."""
    monkeypatch.setattr(golden, "DIRECTORY", tmp_path)
    assert golden.record() == []

    def change(kind: str, place: str, value: Any, version: int = 0) -> None:
        settings = edited(KINDS[kind].current(), place, value, version)
        monkeypatch.setitem(KINDS, kind, golden.Kind(lambda: settings, KINDS[kind].affects, KINDS[kind].admitted))

    return change


def test_recording_again_refuses_and_writes_nothing(files: Callable[..., None]) -> None:
    before = {kind: golden.path(kind).read_bytes() for kind in KINDS}
    version = golden.read("protocols")["listops laptop"]["version"]
    assert {kind: golden.read(kind) for kind in KINDS} == {name: kind.current() for name, kind in KINDS.items()}
    files("mixers", "local/options/colour", 1)
    files("protocols", "listops laptop/train/learning_rate", 1e-4)
    assert len(golden.record()) == 1
    assert {kind: golden.path(kind).read_bytes() for kind in KINDS} == before
    files("protocols", "listops laptop/train/learning_rate", 1e-4, version=1)
    assert golden.record() == []
    assert golden.read("protocols")["listops laptop"]["version"] == version + 1
    assert golden.read("mixers")["local"]["options"]["colour"] == 1


def test_a_variant_may_go_but_not_a_part_of_it() -> None:
    recorded = KINDS["tasks"].current()
    variants = dict(recorded["image"]["variants"])
    del variants["16"]
    without = {**recorded, "image": {**recorded["image"], "variants": variants}}
    assert golden.refused(KINDS["tasks"], recorded, without) == []
    assert golden.refused(KINDS["tasks"], recorded, edited(recorded, "image/variants/16/max_bytes", golden.MISSING))
