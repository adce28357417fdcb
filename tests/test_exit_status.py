"""The exit status of every command: 0 if all is well; else another, and a line on standard error that says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_lra
from lra import finished
from lra.analysis import attention_maps as attention
from lra.bench import report as bench_report
from lra.bench import run as bench
from lra.bench.measure import BenchResult, Speed
from lra.bench.roofline import Roofline
from lra.contract import report as check
from lra.data import verify
from lra.provenance import sessions
from lra.record import files as record
from lra.runtime.devices import Slot
from lra.sweep import plan as sweep
from lra.sweep import reproduce as reproduction
from lra.training import trainer
from lra.training.evaluation import Evaluation
from lra.training.step_functions import TrainState
from tests.lra.edited import edited
from tests.lra.leaderboard.test_leaderboard import run

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ["train", "--task", "listops", "--protocol", "quick", "--source", "sample", "--limit", "20"]
TRAIN += ["--model.layers", "1", "--model.d-model", "8", "--model.qkv-dim", "8", "--model.mlp-dim", "8"]
TRAIN += ["--train.steps", "4", "--train.eval-every", "2", "--train.batch-size", "4", "--max-len", "16"]
LINEAR = [*TRAIN, "--mixer", "linear"]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and results of the test's own, no official data."""
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "no data"))
    monkeypatch.setenv("LRA_PREPARED", str(ROOT / ".cache" / "prepared-for-tests"))
    monkeypatch.setenv("LRA_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Runs whose steps change nothing, and whose evaluations say 0; the function that sets the loss of a step."""
    losses = [1.0]

    def train_steps(functions: Any, state: TrainState, _: Any, steps: int) -> tuple[TrainState, np.ndarray]:
        return state._replace(step=state.step + steps), np.full((steps, 3), losses[-1])

    def evaluate(functions: Any, state: TrainState, split: Any) -> Evaluation:
        return Evaluation(np.zeros(split.count, np.uint8), split.labels[: split.count], 1.0)

    for place in (trainer, finished):
        monkeypatch.setattr(place, "evaluate", evaluate)
    monkeypatch.setattr(trainer, "train_steps", train_steps)
    monkeypatch.setattr(trainer, "compile_ahead", lambda *_: None)
    monkeypatch.setattr(trainer, "forward_flops", lambda *_: 1.0)
    return losses.append


Said = Callable[[], tuple[str, str]]


@pytest.fixture
def result(capsys: pytest.CaptureFixture[str]) -> Said:
    """What has been printed since it was last asked for."""
    return lambda: tuple(capsys.readouterr())  # type: ignore[return-value]


def status(*words: str) -> int:
    try:
        return run_lra.main(list(words))
    except SystemExit as stop:  # the parser's own
        return int(stop.code or 0)


def assert_fails(result: Said, *words: str, because: str = "") -> None:
    """The command ends with status 1, and standard error has one line that begins with `error:`."""
    result()
    assert status(*words) == 1, words
    out, err = result()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert because in lines[0]
    assert "Traceback" not in out + err


def put(accuracy: float | None, directory: Path, **other: Any) -> str:
    """Write the record of a run into a run's directory; return the run's name."""
    made = run(accuracy, **other).record
    record.write(directory / made.id / "records", made)
    return made.id


# ---- train and evaluate


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--task", "listop", "--mixer", "linear"],
        ["train", "--task", "listops"],
        [*LINEAR, "--protocol", "huge"],
        [*LINEAR, "--train.stepz", "3"],
        [*LINEAR, "--train.steps", "many"],
        ["suite", "--protocol", "quick", "--tasks", "listop"],
        ["leaderboard", "--format", "xml"],
        ["nothing"],
        [],
    ],
)
def test_words_that_cannot_be_parsed(result: Said, words: list[str]) -> None:
    assert status(*words) == 2
    assert any(result())


@pytest.mark.parametrize(
    ("words", "because"),
    [
        ([*TRAIN, "--mixer", "linea"], "linea"),
        ([*TRAIN, "--mixer", "missing.py:Mine"], "missing.py"),
        ([*LINEAR, "--mixer-options", "window=3"], "window"),
        ([*LINEAR, "--mixer-options", "eps"], "eps"),
        ([*LINEAR, "--train.steps", "0"], "train.steps"),
        ([*LINEAR, "--model.heads", "3"], "model.heads"),
        ([*LINEAR, "--variant", "shorter"], "shorter"),
        ([*LINEAR, "--train.length-shards", "64"], "64"),
        (["train", "--task", "text", "--mixer", "linear", "--protocol", "small"], "text"),  # no official files
    ],
)
def test_a_run_that_cannot_be(result: Said, words: list[str], because: str, runs: Path) -> None:
    assert_fails(result, *words, because=because)
    assert not list(runs.rglob("*.json")) or "--train.length-shards" in words


def test_a_run_and_its_evaluation(result: Said, runs: Path, untrained: Callable[[float], None]) -> None:
    assert status(*LINEAR) == 0
    (path,) = runs.glob("*/records/*.json")
    made = record.read(path).as_json()
    assert f"{made['test']['accuracy']:.2%}" in result()[0]
    assert status(*LINEAR) == 0  # complete: not repeated
    assert status("evaluate", made["id"]) == 0
    assert status("evaluate", str(runs / made["id"])) == 0
    assert_fails(result, "evaluate", "nothing", because="nothing")
    assert_fails(result, "attention", made["id"], "--example", "1000000", because="1000000")
    assert_fails(result, "attention", "nothing", because="nothing")
    made["test"]["correct"] += 1
    path.write_text(json.dumps(made))
    assert status("evaluate", made["id"]) == 1
    assert "NOT THE SAME" in result()[0]
    for checkpoint in (runs / made["id"] / "checkpoints" / "best").iterdir():
        checkpoint.unlink()
    assert_fails(result, "evaluate", made["id"])
    path.unlink()
    assert_fails(result, "evaluate", made["id"], because="record")


def test_a_picture_of_weights(result: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "draw", lambda *_: ["a line"])
    assert status("attention", "a-run", "--output", "a.png") == 0
    assert result()[0].splitlines() == ["a line", "a.png"]


def test_a_run_that_diverges(result: Said, runs: Path, untrained: Callable[[float], None]) -> None:
    untrained(np.nan)
    for _ in range(2):  # again when asked again
        assert_fails(result, *LINEAR, because="step 0")
    (path,) = runs.glob("*/records/*.json")
    assert record.read(path).status == "diverged"


# ---- many runs


@pytest.mark.parametrize("failed", [[], ["[1/2] listops linear seed 0 (exit status 1)"]])
def test_a_suite(result: Said, monkeypatch: pytest.MonkeyPatch, failed: list[str]) -> None:
    monkeypatch.setattr(sweep, "write_baselines", lambda *_: [])
    monkeypatch.setattr(sweep, "run_jobs", lambda jobs, slots: failed)
    monkeypatch.setattr(sweep, "run_in_subprocess", lambda *_: [Slot()])
    words = ["suite", "--protocol", "quick", "--tasks", "listops", "--mixers", "linear", "fnet"]
    assert status(*words) == bool(failed)
    _, err = result()
    assert ("listops linear seed 0" in err) == bool(failed)
    assert_fails(result, *words, "nope", because="nope")
    assert_fails(result, "suite", "--protocol", "small", "--tasks", "text", because="text")
    monkeypatch.setattr(sweep, "submit", lambda *_: ["1 job"])
    assert status(*words, "--launcher", "slurm") == 0


def test_status(result: Said, untrained: Callable[[float], None]) -> None:
    for words in (["status"], ["status", "--format", "json"]):
        assert status(*words) == 0
    assert status(*LINEAR) == 0
    result()
    assert status("status", "--format", "json") == 0
    assert [r["state"] for r in json.loads(result()[0])] == ["finished"]


@pytest.mark.parametrize(
    ("accuracy", "other", "fails"),
    [(0.334, {}, 0), (0.2, {}, 1), (0.334, {"status": "truncated"}, 1), (None, {}, 1)],
)
def test_a_score_to_reproduce(
    result: Said, monkeypatch: pytest.MonkeyPatch, accuracy: float | None, other: dict[str, Any], fails: int
) -> None:
    """Of `quick` ListOps 33.4 ± 2 are expected."""
    monkeypatch.setattr(reproduction, "run_config", lambda c, **_: run(accuracy, seed=c.seed, **other).record)
    assert status("repro", "listops", "cosformer", "--protocol", "quick", "--seeds", "2") == fails
    assert result()[0].rstrip().splitlines()[-1].startswith("FAIL" if fails else "PASS")
    assert_fails(result, "repro", "listops", "fnet", "--protocol", "quick", because="fnet")
    assert_fails(result, "repro", "listops", "cosformer", "--seeds", "0", because="0")


# ---- records


def test_a_run_is_submitted(
    result: Said, runs: Path, untrained: Callable[[float], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = sessions.code_state()
    monkeypatch.setattr(sessions, "code_state", lambda: state | {"git_commit": "a" * 40, "git_clean": True})
    assert status(*LINEAR) == 0
    (short,) = runs.glob("*/records/*.json")
    assert_fails(result, "submit", short.stem, because="this run was shortened (limit=20, train.steps=4)")
    assert status(*LINEAR, "--limit", "None", "--train.steps", "500", "--train.eval-every", "500") == 0
    (path,) = (path for path in runs.glob("*/records/*.json") if path != short)
    name = path.stem
    assert status("submit", name) == 0
    assert [p.name for p in (tmp_path / "results").rglob("*.json")] == [path.name]
    assert status("submit", name) == 0  # it is there already
    assert status("validate") == 0
    assert_fails(result, "submit", "nothing", because="nothing")
    made = record.read(path)
    path.write_text(record.as_text(edited(made, {"seed": made.seed + 1})))
    assert_fails(result, "submit", name, because="nothing was copied")
    assert status("validate", str(path)) == 1
    assert "FAIL" in result()[0]
    assert_fails(result, "validate", str(tmp_path / "nothing"), because="nothing")
    path.write_text("{")
    assert status("validate", str(path)) == 1


def test_all_committed_records_are_valid(result: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRA_RESULTS", str(ROOT / "results"))
    assert status("validate") == 0
    out, _ = result()
    assert "FAIL" not in out.replace("0 FAIL", "")
    assert out.count("not verified") > 100


@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "latex", "html"])
def test_a_leaderboard(result: Said, runs: Path, form: str) -> None:
    assert status("leaderboard", "--format", form) == 0  # without records
    put(0.5, runs)
    result()
    assert status("leaderboard", "--format", form, "--protocol", "quick") == 0
    assert "cosformer" in result()[0]


# ---- mixers


BROKEN = """
from models.core import QKVAttention


class Broken(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        raise ValueError("not today")
"""


def test_a_check(result: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("broken.py").write_text(BROKEN)
    assert status("check", "broken.py", "--quick") == 1
    assert "broken.py" in result()[0]
    assert_fails(result, "check", "nope", because="nope")
    assert_fails(result, "check", "local", "--mixer-options", "windows=3", because="windows")
    findings = {"linear": "pass", "fnet": "flag", "local": "FAIL"}

    def checked(mixer: Any, options: Any, *, quick: bool) -> Iterator[check.Finding]:
        yield check.Finding("shape", findings[mixer.name], "as it is")  # type: ignore[arg-type]

    monkeypatch.setattr(check, "check", checked)
    for names, fails in ((["linear"], 0), (["linear", "fnet"], 0), (["local"], 1), (["local", "linear"], 1)):
        assert status("check", *names) == fails, names


@pytest.mark.parametrize(("outcome", "fails"), [("measured", 0), ("oom", 0), ("failed", 1)])
def test_a_benchmark(result: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Any, fails: int) -> None:
    def measure(config: Any, seconds: float) -> BenchResult:
        speed = Speed(3, (0.5, 1.0, 2.0))
        state = outcome if config.max_len == 64 else "measured"
        timed = {"training": speed, "inference": speed} if state == "measured" else {}
        return BenchResult(config.mixer_label, config.max_len, state, "a reason", parameters=7, **timed)

    here = {"backend": "cpu", "device": "abacus", "device_count": 1, "cores": 2, "jax": "1.2.3"}
    roof = Roofline(flops_per_second=1e9, bytes_per_second=1e9)
    monkeypatch.setattr(bench, "measure_in_subprocess", measure)
    monkeypatch.setattr(bench, "run_in_subprocess", lambda f, *_: roof if f is bench.bench_roofline.measure else here)
    monkeypatch.setattr(bench_report, "write", lambda *_: "written")
    words = ["bench", "linear", "softmax", "--lengths", "32", "64", "--output", str(tmp_path / "bench")]
    assert status(*words) == fails
    assert_fails(result, "bench", "nope", because="nope")
    assert_fails(result, "bench", "linear", "--lengths", "0", because="0")
    (tmp_path / "bench" / "bench.json").write_text("{")
    assert_fails(result, *words, because="bench.json")


def test_a_list(result: Said) -> None:
    assert status("list") == 0
    assert "cosformer" in result()[0]


# ---- data


def test_data_are_prepared_verified_shown_and_exported(
    result: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listops = ["--tasks", "listops", "--variant", "short", "--source", "sample"]
    assert status("data", "prepare", *listops) == 0
    assert_fails(result, "data", "prepare", "--tasks", "text", because="text")
    assert_fails(result, "data", "prepare", "--tasks", "listops", "--variant", "shorter", because="shorter")
    assert status("data", "verify", *listops) == 0
    assert status("data", "show", "listops", *listops[2:], "--output", str(tmp_path / "a.png")) == 0
    export = ["data", "export", "listops", str(tmp_path / "out"), *listops[2:], "--format", "lra"]
    assert status(*export) == 0
    assert_fails(result, *export, because="out")  # it is there already
    assert_fails(result, "data", "show", "listops", "--variant", "shorter", because="shorter")
    monkeypatch.setattr(verify, "_faults", lambda *_: ["a fault"])
    assert status("data", "verify", *listops) == 1
