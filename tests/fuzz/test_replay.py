"""Every seed, and every input that once broke a reader, through its target. Needs no atheris."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CRASHERS = sorted((Path(__file__).parent / "crashers").glob("*/*"))
MUCH = 50_000_000  # bytes
LONG = 20  # seconds


def replay(name: str, data: bytes, place: Path) -> None:
    begun = time.monotonic()
    tracemalloc.start()
    try:
        TARGETS[name].run(data, place)
        assert tracemalloc.get_traced_memory()[1] < MUCH
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun < LONG


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str, tmp_path: Path) -> None:
    for seed in TARGETS[name].seeds():
        replay(name, seed, tmp_path)


@pytest.mark.parametrize("path", CRASHERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_broke_a_reader(path: Path, tmp_path: Path) -> None:
    replay(path.parent.name, path.read_bytes(), tmp_path)
