"""`bench`: what a result contains, results that fail, and resuming."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import run_lra
from lra.api import configure
from lra.bench import measure as bench_measure
from lra.bench import roofline as bench_roofline
from lra.bench import run as bench
from lra.bench.measure import BenchCase, BenchResult, Speed, measure, timed
from lra.bench.roofline import Roofline
from lra.bench.run import Results
from lra.config import RunConfig
from lra.errors import ConfigError, Interrupted

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"model.layers": 1, "model.d_model": 16, "model.qkv_dim": 16, "model.mlp_dim": 16, "model.head": (16,)}
ENVIRONMENT = {"backend": "cpu", "device": "abacus", "device_count": 1, "cores": 2, "jax": "1.2.3"}
SPEED = Speed(7, (0.9, 1.0, 1.25))
COMPILED = "/jax/core/compile/backend_compile_duration"

BROKEN = """
import os
import signal

from models.core import QKVAttention


class Raises(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        if q.shape[1] > 61:  # longer than the input with which `configure` checks a mixer
            raise ValueError("not today")
        return v


class Dies(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        if q.shape[1] > 61:
            os.kill(os.getpid(), signal.SIGKILL)
        return v
"""


def tiny(mixer: str = "linear", length: int = 32, batch_size: int = 4, **overrides: object) -> RunConfig:
    given = {**SMALL, "max_len": length, "train.batch_size": batch_size, **overrides}
    return configure("text", mixer, protocol="small", overrides=given)


@pytest.fixture(autouse=True)
def cached() -> Iterator[None]:
    """Restore the compilation cache, which `measure` turns off, for the tests that follow."""
    before = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", before)


# ---- one result


def test_steps_are_measured_without_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    real = bench_measure.timed

    def counting(*arguments: Any) -> Speed:
        before = len(events)
        speed = real(*arguments)
        compiled.append(len(events) - before)
        return speed

    events: list[str] = []

    def listen(name: str, *_: Any, **__: Any) -> None:
        events.append(name) if name == COMPILED else None

    monkeypatch.setattr(bench_measure, "timed", counting)
    jax.monitoring.register_event_duration_secs_listener(listen)
    cell = measure(tiny(), seconds=0.01)
    assert cell.status == "measured", cell.reason
    assert events
    assert compiled == [0, 0]
    assert cell.training
    assert cell.inference
    assert cell.training.steps >= 1
    low, median, high = cell.training.seconds
    assert 0 < low <= median <= high
    assert cell.parameters == sum(p.size for p in jax.tree.leaves(BenchCase(tiny()).step_functions.init().params))
    assert cell.needed_bytes
    assert cell.needed_bytes > 4 * 4 * cell.parameters  # parameters, gradients and two moments in float32


def test_the_implementation_of_softmax_attention_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure(tiny("softmax"), seconds=0.01, limit=0).implementation == "blocks"
    assert measure(tiny("linear"), seconds=0.01, limit=0).implementation == ""
    gpu = types.SimpleNamespace(compute_capability="8.0")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, *_, **__: q)
    for dtype, dropout, text in [
        ("float32", 0.0, "blocks"),
        ("bfloat16", 0.0, "cudnn"),
        ("bfloat16", 0.1, "blocks in training, cudnn in inference"),
    ]:
        config = tiny("softmax", **{"model.dtype": dtype, "model.attention_dropout": dropout, "model.heads": 2})
        assert bench_measure.softmax_implementation(config) == text
    config = dataclasses.replace(tiny("softmax", **{"model.dtype": "bfloat16"}), mixer_options={"decay": "alibi"})
    assert bench_measure.softmax_implementation(config) == "blocks"


def test_a_case_above_the_memory_limit_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_measure.Function, "compile", lambda _: None)
    monkeypatch.setattr(bench_measure, "needed_bytes", lambda *_: 1000)
    monkeypatch.setattr(bench_measure.BenchCase, "moved_bytes", lambda *_: 1e6)
    monkeypatch.setattr(bench_measure, "_run", lambda *_: {"peak_bytes": 1})
    fits = measure(tiny(), 1, limit=1000)
    assert (fits.status, fits.peak_bytes) == ("measured", 1)
    cell = measure(tiny(), 1, limit=999)
    assert (cell.status, cell.needed_bytes, cell.limit_bytes, cell.peak_bytes) == ("oom", 1000, 999, None)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("Unable to allocate 3 TiB"), "oom"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"), "oom"),
        (TypeError("unsupported"), "failed"),
    ],
)
def test_a_compile_error_becomes_a_status(monkeypatch: pytest.MonkeyPatch, error: Exception, status: str) -> None:
    def compile(self: object) -> None:
        raise error

    monkeypatch.setattr(bench_measure.Function, "compile", compile)
    cell = measure(tiny(), 1)
    assert cell.status == status
    assert status == "oom" or "TypeError: unsupported" in cell.reason


def test_memory_of_a_quadratic_mixer_is_counted() -> None:
    """At 1,024 tokens the weights of one head of one example are 4 MiB, forward and backward."""
    from lra.bench.memory import needed_bytes

    needed = {}
    for mixer in ("linear", "polynomial"):
        subject = BenchCase(tiny(mixer, 1024, 1))
        compiled = {"gradient": subject.functions["gradient"].compile()}
        needed[mixer] = needed_bytes(compiled, subject.opt_state, 1)
        assert needed_bytes(compiled, (subject.opt_state, np.zeros(1000, np.float32)), 1) == needed[mixer] + 4000
    assert needed["polynomial"] - needed["linear"] > 2 * 4 * 2**20


def test_operations_do_not_depend_on_the_micro_batch() -> None:
    def gradient(**changes: object) -> float:
        subject = BenchCase(tiny(length=256, batch_size=4, **changes))
        return subject.flops() - subject.functions["update"].flops()

    assert gradient(**{"train.micro_batch": 1}) == pytest.approx(gradient(**{"train.micro_batch": 4}), rel=0.05)


def test_moved_bytes_are_those_of_all_programs_of_a_step() -> None:
    """Longer examples move more bytes; all micro-batches count, and the update once."""
    moved = {}
    for length in (64, 256):
        subject = BenchCase(tiny(length=length, batch_size=4, **{"train.micro_batch": 2}))
        compiled = {name: function.compile() for name, function in subject.functions.items()}
        moved[length] = subject.moved_bytes(compiled)
        one = compiled["gradient"].cost_analysis()["bytes accessed"]
        assert moved[length] > 2 * one + 7 * 4 * subject.step_functions.parameters  # adamw reads 4 arrays and writes 3
    assert moved[256] > 2 * moved[64]


def test_roofline_bound_is_the_longer_of_two_times() -> None:
    roof = Roofline(flops_per_second=8.0, bytes_per_second=2.0)
    assert roof.bound(flops=16, moved=1) == 2
    assert roof.bound(flops=16, moved=10) == 5


def test_the_first_step_is_not_counted_unless_it_is_the_only_one() -> None:
    calls: list[int] = []
    assert timed(lambda: calls.append(1), 0).steps == len(calls) == 1
    calls.clear()
    assert timed(lambda: calls.append(1), 0.05).steps == len(calls) - 1 > 1


# ---- many results


@pytest.mark.slow
def test_a_mixer_that_raises_or_is_killed_gives_a_failed_result(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    cells = [bench.measure_in_subprocess(tiny(f"{tmp_path}/broken.py:{name}", 64), 1) for name in ("Raises", "Dies")]
    assert [c.status for c in cells] == ["failed", "failed"]
    assert cells[0].reason == "broken.py:11 raised ValueError: not today"
    assert "killed" in cells[1].reason
    assert cells[1].mixer.startswith("broken.py:Dies@")
    assert bench.run_in_subprocess(sum, (1, 2)) == 3


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace measuring by a stub; return the (mixer, length) pairs that were measured."""
    done: list[tuple[str, int]] = []

    def pretend(config: RunConfig, seconds: float) -> BenchResult:
        done.append((config.mixer_label, config.max_len))
        return BenchResult(config.mixer_label, config.max_len, "measured", training=SPEED, inference=SPEED)

    monkeypatch.setattr(bench, "measure_in_subprocess", pretend)
    pretend_to_be(ENVIRONMENT, monkeypatch)
    return done


def pretend_to_be(environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    roof = Roofline(flops_per_second=1e9, bytes_per_second=1e9)
    monkeypatch.setattr(
        bench, "run_in_subprocess", lambda f, *_: roof if f is bench_roofline.measure else dict(environment)
    )


def run(directory: Path, **changes: Any) -> Results:
    given: dict[str, Any] = {
        "protocol": None,
        "batch_size": 4,
        "dtype": "float32",
        "seconds": 1,
        "directory": directory,
    }
    return bench.bench(("cosformer", "softmax"), (128, 64), **{**given, **changes})


def test_an_interrupted_benchmark_resumes(tmp_path: Path, faked: list, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend = bench.measure_in_subprocess

    def interrupting(config: RunConfig, seconds: float) -> BenchResult:
        if len(faked) == 2:
            raise KeyboardInterrupt
        if not faked:
            return dataclasses.replace(pretend(config, seconds), status="failed")
        return pretend(config, seconds)

    monkeypatch.setattr(bench, "measure_in_subprocess", interrupting)
    with pytest.raises(Interrupted, match=r"\[3/4\] cosformer 128"):
        run(tmp_path)
    assert faked == [("cosformer", 64), ("softmax", 64)]
    monkeypatch.setattr(bench, "measure_in_subprocess", pretend)
    faked.clear()
    results = run(tmp_path)
    assert faked == [("cosformer", 64), ("cosformer", 128), ("softmax", 128)]  # failed results are measured again
    assert [p.name for p in tmp_path.iterdir()] == ["bench.json"]
    assert Results.read(tmp_path / "bench.json") == results
    assert len(results.cells) == 4
    assert results.setting.protocol == "small@2"  # of a CPU
    fields = json.loads((tmp_path / "bench.json").read_text())
    assert fields["kind"] == "bench"
    assert fields["command"].startswith("python run_lra.py bench cosformer softmax --lengths 128 64 --protocol small")


def test_results_of_another_setting_are_renamed(tmp_path: Path, faked: list, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    for change in ({"batch_size": 8}, {"dtype": "bfloat16"}, {"protocol": "lra"}):
        faked.clear()
        run(tmp_path, **change)
        assert len(faked) == 4
    faked.clear()
    monkeypatch.setattr(bench, "code_state", lambda: {"sha256": "other"})
    run(tmp_path, protocol="lra")
    pretend_to_be({**ENVIRONMENT, "backend": "gpu", "device": "another"}, monkeypatch)
    assert run(tmp_path).setting.protocol == "lra@2"  # of an accelerator
    assert len(faked) == 8
    assert len(list(tmp_path.glob("bench-*.json"))) >= 1  # renamed, not lost
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(ConfigError, match="another --output"):
        run(tmp_path)


def test_a_field_of_the_wrong_type_is_named(tmp_path: Path, faked: list) -> None:
    run(tmp_path)
    path = tmp_path / "bench.json"
    fields = json.loads(path.read_text())
    fields["cells"][1]["training"]["seconds"] = [1, 2]
    path.write_text(json.dumps(fields))
    with pytest.raises(ConfigError, match=r"cells\[1\]\.training\.seconds"):
        Results.read(path)


def test_the_path_of_a_user_file_is_not_recorded(tmp_path: Path, faked: list) -> None:
    (tmp_path / "mine.py").write_text(BROKEN)
    bench.bench(
        [f"{tmp_path}/mine.py:Raises"],
        [64],
        protocol="small",
        batch_size=4,
        dtype="float32",
        seconds=1,
        directory=tmp_path / "out",
    )
    text = (tmp_path / "out" / "bench.json").read_text()
    assert "mine.py:Raises@" in text
    assert str(tmp_path) not in text


def test_the_parent_process_never_starts_jax(tmp_path: Path) -> None:
    """Otherwise the parent would block the accelerator for the processes that measure."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from jax._src import xla_bridge
from lra.bench import roofline as bench_roofline
from lra.bench import run as bench
from lra.bench.measure import BenchResult
bench.run_in_subprocess = lambda *_: {ENVIRONMENT!r}
bench.measure_in_subprocess = lambda config, seconds: BenchResult(config.mixer_label, config.max_len, "failed")
bench.bench((), (64,), protocol=None, batch_size=4, dtype="float32", seconds=1, directory=Path({str(tmp_path)!r}))
print(xla_bridge.backends_are_initialized())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "a mixer is one of"),
        (["softmax", "--lengths", "70000"], "a length is 1 to 65,536"),
        (["softmax", "--batch-size", "0"], "--batch-size 0"),
        (["softmax", "--seconds", "0"], "--seconds 0"),
        (["softmax", "--protocol", "quick"], "small"),
    ],
)
def test_errors_list_valid_values(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    try:
        status: Any = run_lra.main(["bench", *words])
    except SystemExit as stop:  # tyro's own errors
        status = stop.code
    output = capsys.readouterr()
    assert status
    assert message in output.err + output.out
