"""The arguments of each job of a sweep, parsed by `train`, give the configuration in the job's directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import run_lra
from lra import api
from lra import config as cfg
from lra.bench import run as bench
from lra.bench.measure import BenchResult
from lra.bench.roofline import Roofline
from lra.config import RunConfig
from lra.protocols import tuning_grid
from lra.provenance.code import computing
from lra.sweep import plan as sweep
from lra.sweep import tuning
from lra.sweep.job import Job
from lra.sweep.plan import Sweep
from models import mixers

DATA = dict.fromkeys(cfg.TASKS, ("d" * 64, "full"))
Calls = list[tuple[RunConfig, float | None]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The configurations and minutes that `train` passes on."""
    asked: Calls = []

    def run_config(config: RunConfig, *, max_minutes: float | None = None, **_: Any) -> None:
        asked.append((config, max_minutes))

    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    monkeypatch.setattr(api, "run_config", run_config)
    monkeypatch.setattr(api, "summary", lambda _: "")
    return asked


def assert_trains_its_config(job: Job, calls: Calls, max_minutes: float | None = None) -> RunConfig:
    """The command of a job trains what the `config.json` of its directory says, in this directory."""
    assert run_lra.main(["train", *job.arguments]) == 0
    config, minutes = calls[-1]
    assert minutes == max_minutes
    assert config == RunConfig.read(job.directory / "config.json")
    assert job.directory.name == config.run_id("d" * 64, computing(config).sha256)
    return config


@pytest.mark.parametrize(("task", "protocol"), [("listops", "small"), ("pathfinder", "lra")])
def test_of_every_mixer(task: str, protocol: str, calls: Calls) -> None:
    """In `lra`, the source's sizes differ from mixer to mixer."""
    names = mixers.available()
    jobs = sweep.make_plan(Sweep([task], names, protocol), DATA).jobs
    assert len(jobs) == len(names)
    for name, job in zip(names, jobs, strict=True):
        config = assert_trains_its_config(job, calls)
        assert (config.mixer, config.protocol, config.seed, config.modified) == (name, protocol, 0, False)


def test_of_every_task_with_seeds_and_minutes(calls: Calls) -> None:
    wanted = Sweep(cfg.TASKS, ["cosformer", "performer"], "laptop", seeds=3, max_minutes=2.5)
    data = {task: ("d" * 64, cfg.protocol(task, "laptop").variant) for task in cfg.TASKS}
    configs = [assert_trains_its_config(job, calls, max_minutes=2.5) for job in sweep.make_plan(wanted, data).jobs]
    assert [(c.task, c.mixer, c.seed) for c in configs] == [
        (t, m, s) for t in cfg.TASKS for m in ("cosformer", "performer") for s in range(3)
    ]


def test_of_trials_and_of_what_they_chose(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Sweep(["listops", "text"], ["cosformer"], "lra", seeds=2, tune=True)
    named = [assert_trains_its_config(job, calls) for job in sweep.make_plan(wanted, DATA).jobs]
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
    chosen = [assert_trains_its_config(job, calls) for job in sweep.make_plan(wanted, DATA).jobs]
    assert [(c.task, c.seed, c.train.learning_rate) for c in chosen] == [
        *(("listops", seed, rates[2]) for seed in (0, 1)),
        *(("text", seed, text) for seed in (0, 1)),
    ]


@pytest.mark.parametrize("protocol", ["small", "lra"])
def test_a_cell_of_the_benchmark_is_the_protocol_of_text_at_its_length(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[RunConfig, float]] = []

    def measure(config: RunConfig, seconds: float) -> BenchResult:
        measured.append((config, seconds))
        return BenchResult(config.mixer_label, config.max_len, "failed")

    roof, here = Roofline(flops_per_second=1.0, bytes_per_second=1.0), {"backend": "cpu"}
    monkeypatch.setattr(bench, "measure_in_subprocess", measure)
    monkeypatch.setattr(bench, "run_in_subprocess", lambda f, *_: roof if f is bench.bench_roofline.measure else here)
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
