"""A sweep on this machine: what it runs, how many processes side by side, and how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import loky
import pytest

import run_lra
from lra.errors import Interrupted
from lra.paths import ROOT
from lra.record import status
from lra.record.files import write
from lra.runtime.devices import Slot, slots
from lra.sweep import job as jobs
from lra.sweep import plan as sweep
from lra.sweep.job import Job
from lra.sweep.local import run_jobs
from lra.sweep.plan import Sweep, make_plan, prepare_data
from tasks.errors import DataError
from tests.lra.edited import edited
from tests.lra.leaderboard.test_leaderboard import run

# Stands for run_lra.py: `train HOW NAME` says in which place it is, and how many there are at the time.
TRAIN = """
import os, signal, sys, time
from pathlib import Path

how, name = sys.argv[2:4]
here = Path(os.environ["LRA_RUNS"])
def stop(*_):
    with (here / f"{name} told").open("a") as told:
        told.write("to stop, ")
    time.sleep(0.3)
    sys.exit(130)

signal.signal(signal.SIGTERM, stop)
(here / f"{name} runs").write_text(os.environ["PLACE"])
if how == "badly":
    sys.exit("this is why")
if how.startswith("beside "):
    other, patience = how.split()[1], time.monotonic() + 30
    while not list(here.glob(f"{other} *")) and time.monotonic() < patience:
        time.sleep(0.02)
(here / f"{name} saw").write_text(str(len(list(here.glob("* runs")))))
time.sleep(60 if how == "until stopped" else 0.2)
(here / f"{name} runs").rename(here / f"{name} ran")
"""


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path_factory.mktemp("code") / "run_lra.py"
    script.write_text(TRAIN)
    monkeypatch.setattr(jobs, "RUN_LRA", script)


def job(runs: Path, how: str, name: str) -> Job:
    return Job(name, (how, name), runs / f"{name} directory")


SLOTS = [Slot({"PLACE": "0"}), Slot({"PLACE": "1"})]


def test_one_run_per_gpu_and_one_run_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    assert slots() == [Slot()]  # of the CPU, whatever the number of its devices
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots() == [Slot({"CUDA_VISIBLE_DEVICES": n}) for n in ("0", "1", "2")]
    assert slots(2) == slots()[:2]
    assert slots(9) == slots()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-1a2b,7")
    assert slots() == [Slot({"CUDA_VISIBLE_DEVICES": n}) for n in ("4", "GPU-1a2b", "7")]


def test_parallel_runs_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 7})
    monkeypatch.setattr(loky, "cpu_count", lambda: 5)
    assert slots(1) == [Slot()]
    assert slots(2) == [Slot(cores=(0, 2, 7)), Slot(cores=(1, 5))]
    assert slots(9) == [Slot(cores=(core,)) for core in (0, 1, 2, 5, 7)]


def test_parallel_runs_divide_the_cores_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its quota may be lower than the number of cores that it sees."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(loky, "cpu_count", lambda: 2)
    assert [len(slot.cores) for slot in slots(9)] == [32, 32]


def test_parallel_runs_divide_the_cores_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes have no affinity there."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(loky, "cpu_count", lambda: 10)
    assert slots(3) == [Slot({"JAX_NUM_CPU_DEVICES": "3"})] * 3
    for slot in slots(3):
        slot.use_cores()
    assert slots() == [Slot()]


def test_a_run_sees_only_the_cores_of_its_slot(runs: Path, stand_in: None) -> None:
    cores = sorted(os.sched_getaffinity(0))
    jobs.RUN_LRA.write_text(TRAIN.replace('os.environ["PLACE"]', "str(sorted(os.sched_getaffinity(0)))"))
    assert run_jobs([job(runs, "well", name) for name in "ab"], [Slot(cores=(cores[-1],))]) == []
    assert [(runs / f"{name} ran").read_text() for name in "ab"] == [f"[{cores[-1]}]"] * 2
    assert sorted(os.sched_getaffinity(0)) == cores  # of the suite itself


def test_every_place_is_used_by_one_process_at_a_time(runs: Path, stand_in: None) -> None:
    wanted = [job(runs, f"beside {other}", name) for name, other in zip("abc", "baa", strict=True)]
    assert run_jobs(wanted, SLOTS) == []
    saw = [int((runs / f"{name} saw").read_text()) for name in "abc"]
    assert saw[:2] == [2, 2]
    assert max(saw) == 2
    used = [(runs / f"{name} ran").read_text() for name in "abc"]
    assert sorted(used[:2]) == ["0", "1"]
    assert used[2] in used[:2]


def test_one_place_is_one_process_at_a_time(runs: Path, stand_in: None, capfd: Any) -> None:
    assert run_jobs([job(runs, "well", name) for name in "ab"], SLOTS[:1]) == []
    assert [(runs / f"{name} saw").read_text() for name in "ab"] == ["1", "1"]
    assert capfd.readouterr().err == "[1/2] a\n[2/2] b\n"


def test_a_cell_that_fails_takes_no_other_with_it(runs: Path, stand_in: None, capfd: Any) -> None:
    failed = run_jobs([job(runs, "badly", "a"), job(runs, "well", "b"), job(runs, "well", "c")], SLOTS)
    assert failed == ["[1/3] a (exit status 1)"]
    assert (runs / "b ran").exists()
    assert (runs / "c ran").exists()
    assert "this is why\n" in capfd.readouterr().err
    sign = (runs / "a directory" / "status.json").read_text()
    assert "exit status 1 before its first step" in sign


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None])
def test_a_signal_stops_all_and_begins_no_other(runs: Path, stand_in: None, number: signal.Signals | None) -> None:
    """SIGTERM is passed on. Ctrl-C is not: the processes get it from the terminal; nor what they get by themselves."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    wanted = [job(runs, "until stopped", "a"), job(runs, "until stopped", "b"), job(runs, "well", "c")]
    jobs.RUN_LRA.write_text(TRAIN.replace('os.environ["PLACE"]', "str(os.getpid())"))

    def stop() -> None:
        while len(list(runs.glob("* saw"))) < 2:
            time.sleep(0.05)
        if number is not None:
            os.kill(os.getpid(), number)
        if number != signal.SIGTERM:
            for name in "ab":
                os.kill(int((runs / f"{name} runs").read_text()), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    began = time.monotonic()
    with pytest.raises(Interrupted, match=r"stopped in \[1/3\] a, \[2/3\] b; the same command resumes it"):
        run_jobs(wanted, SLOTS)
    stopper.join()
    assert time.monotonic() - began < 20
    assert [(runs / f"{name} told").read_text() for name in "ab"] == ["to stop, ", "to stop, "]
    assert not (runs / "c runs").exists()
    assert not (runs / "c ran").exists()
    assert not list(runs.glob("* directory"))  # none of them failed
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_is_complete_is_not_run_again_and_the_rest_waits(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "write_baselines", lambda *_: [])
    wanted = Sweep(["listops"], ["cosformer", "fnet"], protocol="quick", seeds=2, max_minutes=5)
    data = prepare_data(wanted)
    planned = make_plan(wanted, data)
    names = [f"listops {mixer} seed {seed}" for mixer in ("cosformer", "fnet") for seed in (0, 1)]
    assert [c.name for c in planned.jobs] == names
    words = ["--task", "listops", "--mixer", "cosformer", "--protocol", "quick", "--max-minutes", "5", "--seed", "1"]
    assert planned.jobs[1].command[2:] == ["train", *words]
    assert planned.jobs[1].command[0] == sys.executable
    assert [(r.mixer, r.seed, r.state) for r in status.statuses()] == [
        (mixer, seed, "waiting") for mixer in ("cosformer", "fnet") for seed in (0, 1)
    ]
    place = planned.jobs[1].directory
    write(place / "records", edited(run(0.5, seed=1).record, {"id": place.name}))
    assert [c.name for c in make_plan(wanted, data).jobs] == [names[0], *names[2:]]


def test_all_data_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"(?s)text: no official files.*image: no official files"):
        sweep.suite(Sweep(["text", "image"], ["cosformer"], protocol="small"))


def test_devices_are_left_to_the_runs(runs: Path) -> None:
    """What stays alive beside the runs starts no JAX on a GPU, which would take most of its memory."""
    script = (
        "import jax, os; from lra.sweep import plan as sweep; from lra.sweep.plan import Sweep\n"
        "sweep.run_jobs = lambda cells, places: [f'{os.getpid()} {len(cells)} {places}']\n"
        "sweep.slots = lambda parallel: os.getpid()\n"
        "(said,) = sweep.suite(Sweep(['listops'], ['linear'], protocol='quick'))\n"
        "parent, cells, asked = said.split()\n"
        "assert (cells, jax.config.jax_platforms) == ('1', 'cpu'), said\n"
        "assert parent != asked, said\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_says_what_to_run(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seen: list[Any] = []

    def submit(*arguments: Any) -> list[str]:
        seen.extend(arguments)
        return ["17_0  listops fnet seed 0"]

    monkeypatch.setattr(sweep, "submit", submit)
    words = ["suite", "--protocol", "small", "--tasks", "listops", "--mixers", "fnet", "--seeds", "3"]
    slurm = ["--launcher", "slurm", "--slurm.partition", "gpu", "--slurm.extra", "account=lab", "exclusive"]
    assert run_lra.main([*words, *slurm]) == 0
    assert seen[0] == Sweep(("listops",), ("fnet",), "small", seeds=3)
    assert (seen[1].partition, seen[1].extra) == ("gpu", ("account=lab", "exclusive"))
    assert capsys.readouterr().out == "17_0  listops fnet seed 0\n"
