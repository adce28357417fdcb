"""A sweep on a cluster: what sbatch is asked for, and jobs that run, are preempted, cancelled, and fail.

Jobs run through submitit's local executor, in an environment that hands on nothing of what the user's shell has.
"""

from __future__ import annotations

import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import submitit

from lra.config import Slurm
from lra.errors import RunError
from lra.paths import write_atomically
from lra.record import files as record
from lra.record import status
from lra.runtime.devices import Slot
from lra.sweep import job as jobs_module
from lra.sweep import plan as sweep
from lra.sweep import slurm
from lra.sweep.job import Job
from lra.sweep.local import run_jobs
from lra.sweep.plan import Sweep
from lra.sweep.slurm import ArrayElement

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
TINY = ["--task", "listops", "--protocol", "quick", "--source", "sample", "--limit", "20", "--mixer", "linear"]
TINY += ["--model.layers", "1", "--model.d-model", "16", "--model.qkv-dim", "16", "--model.mlp-dim", "16"]
# Inputs of one length: one program to compile.
TINY += ["--train.batch-size", "8", "--train.eval-every", "10", "--max-len", "48"]
OF_THE_MOMENT = ("created", "seconds", "steps_per_second", "peak_bytes")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_PREPARED", str(ROOT / ".cache" / "prepared-for-tests"))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.chdir(tmp_path)  # not where the project is
    return tmp_path / "runs"


@pytest.fixture
def local_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_executor(options: Slurm) -> submitit.Executor:
        python = f"env -u LRA_RUNS -u LRA_PREPARED {slurm.python_command()}"
        executor = submitit.LocalExecutor(slurm.logs_directory(), python=python)
        executor.update_parameters(timeout_min=5)
        return executor

    monkeypatch.setattr(slurm, "make_executor", make_executor)


def tiny(seed: int, steps: int) -> Job:
    return Job(f"seed {seed}", (*TINY, "--train.steps", str(steps), "--seed", str(seed)), Path("a run"))


def wait_for(what: Callable[[], Any]) -> Any:
    patience = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < patience
        time.sleep(0.1)
    return found


def records(runs: Path) -> list[dict[str, Any]]:
    return sorted((f.record.as_json() for f in record.find([(runs, "yours")])), key=lambda r: r["seed"])


def test_jobs_write_the_records_that_the_local_launcher_writes(
    runs: Path, local_executor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [tiny(seed, steps=20) for seed in (0, 1)]
    assert run_jobs(wanted, [Slot(), Slot()]) == []
    here = records(runs)
    monkeypatch.setenv("LRA_RUNS", str(runs.parent / "of jobs"))
    jobs = slurm.submit(wanted, Slurm())
    logs = runs.parent / "of jobs" / "slurm"
    wait_for(lambda: all((logs / f"{job}_0_result.pkl").exists() for job in jobs))
    there = records(runs.parent / "of jobs")
    assert [r["seed"] for r in here] == [0, 1]
    for a, b in zip(here, there, strict=True):
        assert {k: v for k, v in a.items() if k not in OF_THE_MOMENT} == {
            k: v for k, v in b.items() if k not in OF_THE_MOMENT
        }
    assert "test accuracy" in (logs / f"{jobs[0]}_0_log.out").read_text()


def test_a_preempted_job_goes_on_and_a_cancelled_one_waits_for_its_end(runs: Path, local_executor: None) -> None:
    (job,) = slurm.submit([tiny(0, steps=300)], Slurm())
    logs = runs / "slurm"

    def expected() -> str:
        return (logs / f"{job}_0_log.err").read_text() if (logs / f"{job}_0_log.err").exists() else ""

    def element() -> int:
        """The process of submitit, which waits for that of the run."""
        sign = json.loads(next(runs.glob("*/status.json")).read_text())
        return int(Path(f"/proc/{sign['pid']}/stat").read_text().rpartition(")")[2].split()[1])

    wait_for(lambda: ": step 10, validation" in expected())
    os.kill(element(), signal.SIGUSR2)  # the warning
    wait_for(lambda: expected().count(": stopped by a signal at step") == 1)
    (before,) = status.statuses()
    assert before.state == "stopped"
    assert before.step is not None
    wait_for(lambda: f": step {before.step // 10 * 10 + 50}, validation" in expected())
    held = element()
    os.kill(held, signal.SIGTERM)
    wait_for(lambda: expected().count(": stopped by a signal at step") == 2)
    time.sleep(1)
    assert Path(f"/proc/{held}").exists()  # it has not ended by itself
    assert not (logs / f"{job}_0_result.pkl").exists()
    os.kill(held, signal.SIGUSR2)
    wait_for((logs / f"{job}_0_result.pkl").exists)
    assert [expected().count(f": step {step}, validation") for step in range(10, 310, 10)] == 30 * [1]
    (done,) = records(runs)
    assert done["status"] == "complete"
    assert len(done["validation"]) == 30


SAVING = """
import signal, sys, time

def stop(*_):
    time.sleep(1)
    open("saved", "w").close()
    sys.exit(130)

signal.signal(signal.SIGTERM, stop)
open("begun", "w").close()
time.sleep(60)
"""


def test_the_warning_waits_until_the_state_is_saved(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "RUN_LRA", runs.parent / "run_lra.py")
    jobs_module.RUN_LRA.write_text(SAVING)
    element = ArrayElement(Job("a job", (), Path()), {"A": "b"}, str(runs.parent))
    element._child = subprocess.Popen(element.job.command)
    wait_for((runs.parent / "begun").exists)
    submission = element.checkpoint()
    assert (runs.parent / "saved").exists()
    assert submission.function == ArrayElement(element.job, {"A": "b"}, str(runs.parent))
    assert pickle.loads(pickle.dumps(submission.function)) == submission.function
    element._child.wait()


ELEMENT = """
import sys
from pathlib import Path
from lra.sweep import job
from lra.sweep.slurm import ArrayElement

job.RUN_LRA = Path(sys.argv[1])
ArrayElement(job.Job("a job", (), Path()), {}, ".")()
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("import sys; sys.exit(130)", False),  # it has got the warning before the job, as clusters may have it
        ("import time; time.sleep(60)", True),  # it dies of the signal before it can save anything
    ],
)
def test_a_job_that_is_stopped_does_not_end_by_itself(tmp_path: Path, script: str, expected: bool) -> None:
    train = tmp_path / "run_lra.py"
    train.write_text(f"open('begun', 'w').close(); {script}")
    process = subprocess.Popen([sys.executable, "-c", ELEMENT, train], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_for((tmp_path / "begun").exists)
        if expected:
            process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_job_that_fails_says_so(runs: Path, monkeypatch: pytest.MonkeyPatch, seen_before: bool) -> None:
    (runs.parent / "run_lra.py").write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(jobs_module, "RUN_LRA", runs.parent / "run_lra.py")
    sign = runs / "a run" / "status.json"
    if seen_before:
        write_atomically(sign, '{"state": "running"}')
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(RunError, match="seed 0: exit status 3"):
            ArrayElement(Job("seed 0", (), runs / "a run"), {}, str(runs.parent))()
    finally:
        signal.signal(signal.SIGTERM, before)
    state = json.loads(sign.read_text())
    assert state["state"] == ("running" if seen_before else "failed")
    assert seen_before or "see its job's log in runs/slurm/" in state["message"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that keeps what it is given."""
    for name, script in (("srun", ""), ("sbatch", f'cp "$1" {tmp_path}/submitted\necho Submitted batch job 4711')):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def test_what_sbatch_is_asked_for(runs: Path, cluster: Path) -> None:
    options = Slurm(
        partition="long", minutes=90, gpus=2, cpus=6, memory_gb=20, at_once=3, extra=("account=lab", "exclusive")
    )
    assert slurm.submit([tiny(seed, steps=20) for seed in range(5)], options) == [f"4711_{n}" for n in range(5)]
    text = (cluster / "submitted").read_text()
    asked = {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")}
    assert asked >= {
        "--array=0-4%3",
        "--requeue",
        "--signal=USR2@120",
        "--time=90",
        "--gres=gpu:2",
        "--partition=long",
        "--cpus-per-task=6",
        "--mem=20GB",
        "--account=lab",
        "--exclusive",
        f"--error={runs}/slurm/%A_%a_0_log.err",
    }
    srun = shlex.split(next(line for line in text.splitlines() if line.startswith("srun ")))
    assert "--cpus-per-task=6" in srun
    assert srun[srun.index("env") :][:3] == ["env", f"PYTHONPATH={ROOT}", sys.executable]
    assert len(list((runs / "slurm").glob("4711_*_submitted.pkl"))) == 5
    slurm.submit([tiny(0, steps=20)], Slurm(gpus=0))
    text = (cluster / "submitted").read_text()
    assert "gres" not in text
    assert "--partition" not in text


def test_what_the_user_is_told(runs: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "write_baselines", lambda *_: [])
    expected = sweep.submit(Sweep(["listops"], ["cosformer"], "quick", seeds=2), Slurm())
    assert expected[:2] == ["4711_0  listops cosformer seed 0", "4711_1  listops cosformer seed 1"]
    assert str(runs / "slurm") in expected[2]
    assert "run_lra.py status --watch" in expected[3]
    assert [r.state for r in status.statuses()] == ["waiting", "waiting"]
    expected = sweep.submit(Sweep(["listops"], ["cosformer"], "quick", tune=True), Slurm())
    assert [line.split("  ")[1].rpartition(" ")[0] for line in expected[:3]] == ["listops cosformer rate"] * 3
    assert "the same command submits the seeds" in expected[-1]
    monkeypatch.setattr(Job, "complete", property(lambda _: True))
    monkeypatch.setattr(slurm, "submit", None)
    assert sweep.submit(Sweep(["listops"], ["cosformer"], "quick"), Slurm()) == [
        "nothing to submit: all runs are complete"
    ]


def test_errors_say_what_is_missing(runs: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster / "bin" / "sbatch").write_text("#!/bin/sh\necho invalid partition specified: lng >&2\nexit 1\n")
    with pytest.raises(RunError, match=r"sbatch refused: .*invalid partition specified: lng"):
        slurm.submit([tiny(0, steps=20)], Slurm())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match="srun was not found"):
        slurm.submit([tiny(0, steps=20)], Slurm())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(RunError, match="needs submitit: pip install submitit"):
        slurm.submit([tiny(0, steps=20)], Slurm())
