"""A suite runs what it names: the words of each cell, parsed by `train`, are the configuration in its directories."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import run_lra
from lra import api, config_file
from lra import config as cfg
from lra.bench import run as bench
from lra.bench.measure import Cell as BenchCell
from lra.bench.roofline import Roofline
from lra.config import RunConfig
from lra.protocols import tuning_grid
from lra.provenance.code import computing
from lra.sweep import plan as sweep
from lra.sweep import tuning
from lra.sweep.job import Cell
from lra.sweep.plan import Sweep
from models import mixers

DATA = dict.fromkeys(cfg.TASKS, ("d" * 64, "full"))
Calls = list[tuple[RunConfig, list[int], float | None]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What was asked for: configuration, seeds, minutes."""
    asked: Calls = []

    def run_seeds(config: RunConfig, seeds: Any, *, max_minutes: float | None = None, **_: Any) -> list[Any]:
        asked.append((config, list(seeds), max_minutes))
        return []

    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    monkeypatch.setattr(api, "run_seeds", run_seeds)
    return asked


def assert_runs_what_it_names(cell: Cell, calls: Calls, max_minutes: float | None = None) -> list[RunConfig]:
    """The command of a cell trains what the `config.json` of its directories say, in these directories."""
    assert run_lra.main(["train", *cell.words]) == 0
    config, seeds, minutes = calls[-1]
    assert minutes == max_minutes
    named = [config_file.read(place / "config.json") for place in cell.directories]
    assert [dataclasses.replace(config, seed=seed) for seed in seeds] == named
    assert [place.name for place in cell.directories] == [c.run_id("d" * 64, computing(c).sha256) for c in named]
    return named


@pytest.mark.parametrize(("task", "protocol"), [("listops", "small"), ("pathfinder", "lra")])
def test_of_every_mixer(task: str, protocol: str, calls: Calls) -> None:
    """In `lra`, the source's sizes differ from mixer to mixer."""
    names = mixers.available()
    cells = sweep.plan(Sweep([task], names, protocol), DATA).cells
    assert len(cells) == len(names)
    for name, cell in zip(names, cells, strict=True):
        (config,) = assert_runs_what_it_names(cell, calls)
        assert (config.mixer, config.protocol, config.seed, config.modified) == (name, protocol, 0, False)


@pytest.mark.parametrize("together", [False, True])
def test_of_every_task_with_seeds_and_minutes(together: bool, calls: Calls) -> None:
    wanted = Sweep(cfg.TASKS, ["cosformer", "performer"], "laptop", seeds=3, together=together, max_minutes=2.5)
    found = []
    for cell in sweep.plan(wanted, DATA).cells:
        named = assert_runs_what_it_names(cell, calls, max_minutes=2.5)
        assert len(named) == (3 if together else 1)
        found += [(c.task, c.mixer, c.seed) for c in named]
    assert found == [(t, m, s) for t in cfg.TASKS for m in ("cosformer", "performer") for s in range(3)]


@pytest.mark.parametrize("together", [False, True])
def test_of_trials_and_of_what_they_chose(together: bool, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Sweep(["listops", "text"], ["cosformer"], "lra", seeds=2, together=together, tune=True)
    cells = sweep.plan(wanted, DATA).cells
    named = [config for cell in cells for config in assert_runs_what_it_names(cell, calls)]
    rates = tuning_grid(cfg.protocol("listops", "lra"))
    base = cfg.protocol("listops", "lra").train.learning_rate
    assert rates == pytest.approx([0.3 * base, base, 3 * base])
    text = cfg.protocol("text", "lra").train.learning_rate
    assert [(c.task, c.seed, c.train.learning_rate) for c in named] == [
        *(("listops", 0, rate) for rate in rates),
        *(("text", seed, text) for seed in (0, 1)),
    ]
    monkeypatch.setattr(tuning, "run_record", lambda *_: {})
    monkeypatch.setattr(tuning, "write_tuning", lambda _: rates[2])
    cells = sweep.plan(wanted, DATA).cells
    chosen = [config for cell in cells for config in assert_runs_what_it_names(cell, calls)]
    assert [(c.task, c.seed, c.train.learning_rate) for c in chosen] == [
        *(("listops", seed, rates[2]) for seed in (0, 1)),
        *(("text", seed, text) for seed in (0, 1)),
    ]


@pytest.mark.parametrize("protocol", ["small", "lra"])
def test_a_cell_of_the_benchmark_is_the_protocol_of_text_at_its_length(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[RunConfig, float]] = []

    def measure(config: RunConfig, seconds: float) -> BenchCell:
        measured.append((config, seconds))
        return BenchCell(config.mixer_label, config.max_len, "failed")

    roof, here = Roofline(flops_per_second=1.0, bytes_per_second=1.0), {"backend": "cpu"}
    monkeypatch.setattr(bench, "measured_apart", measure)
    monkeypatch.setattr(bench, "in_a_process", lambda f, *_: roof if f is bench.bench_roofline.measure else here)
    given = {"protocol": protocol, "batch_size": 24, "dtype": "bfloat16", "seconds": 7.5, "directory": tmp_path}
    results = bench.bench(("cosformer", "lru"), (96, 48), **given)
    base = cfg.protocol("text", protocol)
    assert [(c.mixer, c.max_len, s) for c, s in measured] == [
        ("cosformer", 48, 7.5),
        ("lru", 48, 7.5),
        ("cosformer", 96, 7.5),
        ("lru", 96, 7.5),
    ]
    for config, _ in measured:
        assert config.model == dataclasses.replace(base.model, dtype="bfloat16")
        assert config.train == dataclasses.replace(base.train, batch_size=24)
        assert (config.task, config.protocol, config.variant) == ("text", protocol, "full")
    setting = results.setting
    assert (setting.protocol, setting.batch_size, setting.dtype) == (f"{protocol}@{base.version}", 24, "bfloat16")
    assert setting.command == (
        f"python run_lra.py bench cosformer lru --lengths 96 48 --protocol {protocol} --batch-size 24 --dtype bfloat16 "
        "--seconds 7.5"
    )
