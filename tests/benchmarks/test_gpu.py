"""`python -m benchmarks.gpu`: every part writes its lines, and nothing that fails, hangs or ends stops the rest."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import lines, report, speed, worker
from benchmarks.gpu.__main__ import SHARES, Session
from benchmarks.gpu.lines import Settings
from models import mixers
from models.mixer_files import available
from tests.benchmarks.fake_part import CASES

ROOT = Path(__file__).resolve().parents[2]
FAKE = (sys.executable, "-m", "tests.benchmarks.fake_part")
REFUSED = (
    "tensorflow_datasets", "array_record", "importlib_resources", "matplotlib", "tensorboardX", "sklearn",
    "scipy", "jinja2", "tyro", "PIL", "submitit", "playwright", "hypothesis",
)  # fmt: skip


def session(output: Path, behaviour: str, clock: Callable[[], float] = time.monotonic) -> Session:
    return Session(output, ("cosformer",), True, clock=clock, command=(*FAKE, behaviour))


def all_lines(output: Path) -> list[dict[str, Any]]:
    """Return every line of the file, each of which must be complete."""
    text = (output / lines.NAME).read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def end(output: Path, part: int) -> dict[str, Any]:
    (line,) = (line for line in lines.read(output, part) if line["kind"] == "end")
    return line


def statuses(output: Path, part: int) -> dict[str, str]:
    return {case: line["status"] for case, line in lines.results(output, part).items()}


def environment(directory: Path, **variables: str) -> dict[str, str]:
    places = {name: str(directory / name) for name in ("LRA_RUNS", "LRA_PREPARED", "LRA_DATA")}
    return {**os.environ, **places, "PYTHONPATH": str(ROOT), **variables}


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is not only waiting for its parent to read its exit status."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_every_part_writes_its_lines_and_a_table_on_a_bare_machine(tmp_path: Path) -> None:
    """The real command at tiny sizes, where no process can import what docs/gpu.md does not list."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {REFUSED!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse())
""")
    output, variables = tmp_path / "out", environment(tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    refused = subprocess.run([sys.executable, "-c", "import scipy"], env=variables, capture_output=True, check=False)
    assert b"ModuleNotFoundError: scipy" in refused.stderr
    words = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--mixers", "cosformer", "--output", str(output)]
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, report.failures(output)
    assert done.stdout == f"{output / 'report.md'}\n"
    for part in lines.PARTS:
        assert end(output, part)["status"] == "complete"
        assert end(output, part)["left_out"] == []
    assert statuses(output, 1) == {"cosformer float32": "ok", "cosformer bfloat16": "ok"}
    assert all(math.isfinite(line["last_loss"]) for line in lines.results(output, 1).values())
    assert lines.results(output, 2)["cosformer"]["highest_float32"].keys() >= {"gradients of x", "outputs in training"}
    cell = lines.results(output, 3)["softmax 32"]
    assert cell["steps_per_second"] > 0
    assert cell["needed_bytes"] > 0
    assert cell["roofline_share"] > 0
    for line in lines.results(output, 4).values():
        gap = 1 / line["trainer_steps_per_second"] - 1 / line["compiled_steps_per_second"]
        assert line["host_gap_seconds"] == pytest.approx(gap)
    assert statuses(output, 5) == {"listops": "ok", "text": "no data"}
    run = lines.results(output, 5)["listops"]["run"]
    assert (output / "trained" / f"{run}.json").exists()
    text = (output / report.NAME).read_text()
    assert text.index("## Failures\n\nNone.") < text.index("## Environment") < text.index("## Part 1")
    assert "nothing in this report describes an accelerator" in text
    assert "- text: no data. text: neither aclImdb_v1.tar.gz" in text


def test_a_mixer_that_raises_dies_or_diverges_does_not_stop_the_others(tmp_path: Path) -> None:
    output, broken = tmp_path / "out", Path(__file__).with_name("broken_mixers.py")
    names = [f"{broken}:{name}" for name in ("Raises", "Dies", "NotFinite")] + ["fnet"]
    words = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--parts", "1", "--output", str(output), "--mixers"]
    done = subprocess.run([*words, *names], cwd=ROOT, env=environment(tmp_path), capture_output=True, check=False)
    assert done.returncode == 1
    expected = {names[0]: "failed", names[1]: "crashed", names[2]: "failed", "fnet": "ok"}
    assert statuses(output, 1) == {f"{n} {dtype}": s for dtype in ("float32", "bfloat16") for n, s in expected.items()}
    errors = {case: line.get("error") for case, line in lines.results(output, 1).items()}
    assert errors[f"{names[0]} float32"].endswith("broken_mixers.py:13 raised ValueError: not today")
    assert "-9" in errors[f"{names[1]} float32"]
    assert errors[f"{names[2]} float32"] == "the loss of step 0 is not finite"
    assert len(report.failures(output)) == 6


def test_bench_starts_no_jax_before_its_cells_do(tmp_path: Path) -> None:
    """Its process would reserve the memory of a GPU."""
    code = f"""
from benchmarks.gpu import speed
from benchmarks.gpu.lines import Settings
from jax._src import xla_bridge
assert speed.cases(Settings(3, {str(tmp_path)!r}, (), False, 1.0))
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(tmp_path), check=True)


def test_each_implementation_of_a_mixer_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    option = mixers.Option(Literal["xla", "cudnn"], "xla")
    monkeypatch.setattr(mixers, "options", lambda cls: {"implementation": option})
    assert speed.implementations("softmax") == [{"implementation": "xla"}, {"implementation": "cudnn"}]
    monkeypatch.setattr(mixers, "options", lambda cls: {})
    assert speed.implementations("softmax") == [{}]


def test_a_part_that_raises_is_recorded_and_the_next_runs(tmp_path: Path) -> None:
    session(tmp_path, "raises").run([1, 2], 100)
    assert end(tmp_path, 1)["status"] == "failed"
    assert end(tmp_path, 1)["left_out"] == ["all cases"]
    assert "ImportError: part 1 cannot be imported" in end(tmp_path, 1)["error"]
    assert statuses(tmp_path, 2) == dict.fromkeys(CASES, "ok")
    first, *_ = report.failures(tmp_path)
    assert first[:3] == ("1 mixers", "(the part)", "failed")


def test_the_cases_after_one_whose_process_died_run_in_a_new_process(tmp_path: Path) -> None:
    session(tmp_path, "dies").run([1], 100)
    assert statuses(tmp_path, 1) == {"first": "ok", "second": "crashed", "third": "ok"}
    assert end(tmp_path, 1)["status"] == "complete"


def test_a_process_that_asks_for_it_is_started_again(tmp_path: Path) -> None:
    session(tmp_path, "restarts").run([1], 100)
    assert statuses(tmp_path, 1) == dict.fromkeys(CASES, "ok")
    assert [line["case"] for line in lines.read(tmp_path, 1) if line["kind"] == "start"] == list(CASES)


def test_a_part_is_killed_at_its_limit_and_says_what_it_left_out(tmp_path: Path) -> None:
    """The clock stands still until the second case hangs, then the part's time is over."""
    hanging = tmp_path / "hanging.pid"
    limit = SHARES[1] / (SHARES[1] + SHARES[2]) * 90

    def clock() -> float:
        return limit if hanging.exists() else 0.0

    session(tmp_path, "hangs", clock).run([1, 2], 90)
    assert statuses(tmp_path, 1) == {"first": "ok", "second": "cut off"}
    assert end(tmp_path, 1) == {
        "part": 1, "kind": "end", "status": "time limit", "seconds": limit, "limit": limit, "left_out": ["third"],
        "error": None,
    }  # fmt: skip
    assert not is_alive(int(hanging.read_text()))
    assert end(tmp_path, 2)["limit"] == pytest.approx(90 - limit)
    assert statuses(tmp_path, 2) == dict.fromkeys(CASES, "ok")
    assert "Ended by its time limit after 60 s of 60 s. Left out: third." in (tmp_path / report.NAME).read_text()


def test_time_that_a_part_leaves_is_divided_among_the_later_ones(tmp_path: Path) -> None:
    session(tmp_path, "ends", clock=lambda: 0.0).run(list(SHARES), 100)
    limits = [end(tmp_path, part)["limit"] for part in SHARES]
    left = [sum(SHARES[p] for p in SHARES if p >= part) for part in SHARES]
    assert limits == pytest.approx([100 * s / rest for s, rest in zip(SHARES.values(), left, strict=True)])
    assert limits[-1] == 100
    assert sum(SHARES.values()) == pytest.approx(1)


def test_a_part_without_time_left_is_not_started(tmp_path: Path) -> None:
    times = iter([0.0])
    session(tmp_path, "ends", clock=lambda: next(times, 1_000.0)).run([1], 100)
    assert end(tmp_path, 1)["status"] == "time limit"
    assert end(tmp_path, 1)["left_out"] == ["all cases"]
    assert lines.results(tmp_path, 1) == {}


def test_a_signal_ends_the_part_and_a_report_is_written(tmp_path: Path) -> None:
    code = f"""
import sys
from benchmarks.gpu import __main__ as command
command.WORKER = {(*FAKE, "hangs")!r}
sys.exit(command.main(["--output", {str(tmp_path)!r}]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment(tmp_path))
    hanging = tmp_path / "hanging.pid"
    wait_until(lambda: hanging.exists() and hanging.read_text() != "")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    assert not is_alive(int(hanging.read_text()))
    assert statuses(tmp_path, 1)["second"] == "cut off"
    assert end(tmp_path, 5)["status"] == "stopped"
    text = (tmp_path / report.NAME).read_text()
    assert "Stopped by a signal" in text
    assert "Left out: third." in text


def test_a_killed_command_leaves_complete_lines_and_no_process(tmp_path: Path) -> None:
    output = tmp_path / "out"
    words = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--parts", "1", "--output", str(output)]
    process = subprocess.Popen(words, cwd=ROOT, env=environment(tmp_path))
    wait_until(lambda: bool(lines.read(output, 1)))
    settings = f'"output": "{output}"'
    (pid,) = (int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if settings in p.read_text())
    process.kill()
    process.wait()
    wait_until(lambda: not is_alive(pid))
    written = all_lines(output)
    assert [line["kind"] for line in written if line["part"] == 0][-1] == "end"
    assert [line["case"] for line in written if line["kind"] == "start"]
    assert "## Environment" in (output / report.NAME).read_text()


def test_an_error_of_the_device_starts_a_new_process_and_lack_of_memory_does_not(tmp_path: Path) -> None:
    def fail(message: str) -> Callable[[], dict[str, Any]]:
        def case() -> dict[str, Any]:
            raise jax.errors.JaxRuntimeError(message)

        return case

    settings = Settings(1, str(tmp_path), (), True, 1.0)
    cases = {"memory": fail("RESOURCE_EXHAUSTED: of memory"), "device": fail("INTERNAL: CUDA_ERROR"), "next": dict}
    assert worker.run(settings, cases) == worker.RESTART
    assert statuses(tmp_path, 1) == {"memory": "failed", "device": "failed"}
    assert worker.run(settings, cases) == 0
    assert statuses(tmp_path, 1)["next"] == "ok"
    assert lines.results(tmp_path, 1)["device"]["error"].endswith("INTERNAL: CUDA_ERROR")


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    lines.append(tmp_path, 1, "result", case="a", loss=math.nan, nested={"x": [math.inf, 1.0]})
    assert lines.results(tmp_path, 1)["a"] == {
        "part": 1, "kind": "result", "case": "a", "loss": None, "nested": {"x": [None, 1.0]},
    }  # fmt: skip


def test_results_of_an_earlier_call_are_kept_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "WORKER", (*FAKE, "ends"))
    for _ in range(2):
        assert command.main(["--output", str(tmp_path), "--parts", "3"]) == 0
    (earlier,) = tmp_path.glob("results-before-*.jsonl")
    assert len(earlier.read_text().splitlines()) == len(all_lines(tmp_path))


def test_all_mixers_are_tried_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Session, "run", lambda self, parts, seconds: seen.append((self.mixers, parts, seconds)))
    monkeypatch.setattr(report, "failures", lambda output: [])
    assert command.main(["--output", str(tmp_path)]) == 0
    assert seen == [(available(), [1, 2, 3, 4, 5], 600)]
