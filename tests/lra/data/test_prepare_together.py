"""Processes prepare the same data: one builds, the others wait. Ctrl-C and SIGKILL leave nothing that blocks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SLOW_BUILD = """
import errno, fcntl, os, sys, time
from pathlib import Path

from lra.data import prepare as data
from tasks import listops

place, real = Path(sys.argv[1]), listops.build

def slow(*arguments, **keywords):
    with (place / "builders").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    yield from real(*arguments, **keywords)
    while not (place / "go").exists():
        time.sleep(0.01)

def no_flock(*arguments):
    raise OSError(errno.ENOSYS, "Function not implemented")

listops.build = slow
if "no-flock" in sys.argv:
    fcntl.flock = no_flock
data.LOCK_SECONDS = 0.1

def progress(action, done, total):
    print(action, file=sys.stderr, flush=True)

print(data.prepare("listops", "short", "sample", progress=progress).sha256)
"""

Start = Callable[..., subprocess.Popen[str]]


# A shell lets processes ignore Ctrl-C that it starts in the background, and they pass that on.
HEAR_CTRL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a Python process group, with its own LRA_PREPARED; it is killed at the end."""
    environment = {**os.environ, "LRA_PREPARED": str(tmp_path / "prepared"), "LRA_DATA": str(tmp_path / "data")}
    started = []

    def run(*arguments: str, log: str) -> subprocess.Popen[str]:
        with (tmp_path / log).open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", HEAR_CTRL_C, *arguments],
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(path: Path, text: str, process: subprocess.Popen[str]) -> None:
    """Wait for a line that contains a text, and for its end, which an unbuffered process writes separately."""
    while not (path.exists() and re.search(f"{re.escape(text)}.*\n", path.read_text())):
        assert process.poll() is None, path.read_text() if path.exists() else path
        time.sleep(0.01)


@pytest.mark.parametrize("flock", ["flock", "no-flock"])
def test_one_process_builds_and_the_other_waits(flock: str, start: Start, tmp_path: Path) -> None:
    script = ["-c", SLOW_BUILD, str(tmp_path), flock]
    first = start(*script, log="first")
    wait_for(tmp_path / "builders", str(first.pid), first)
    second = start(*script, log="second")
    wait_for(tmp_path / "second", "waiting for another process", second)
    (tmp_path / "go").touch()
    hashes = [process.communicate()[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert hashes[0] == hashes[1] != ""
    assert (tmp_path / "builders").read_text().split() == [str(first.pid)]


@pytest.mark.parametrize("flock", ["flock", "no-flock"])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_killed_process_does_not_block_the_next(waiting: bool, flock: str, start: Start, tmp_path: Path) -> None:
    script = ["-c", SLOW_BUILD, str(tmp_path), flock]
    first = start(*script, log="first")
    wait_for(tmp_path / "builders", str(first.pid), first)
    if waiting:
        second = start(*script, log="second")
        wait_for(tmp_path / "second", "waiting for another process", second)
    first.kill()
    first.wait()
    if not waiting:
        second = start(*script, log="second")
    (tmp_path / "go").touch()
    second.communicate()
    assert second.returncode == 0
    assert (tmp_path / "builders").read_text().split() == [str(first.pid), str(second.pid)]
    assert [path.name for path in (tmp_path / "prepared").iterdir() if path.suffix != ".lock"] == [
        "listops-short-sample-v1"
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["listops", "--variant", "full"], "preparing listops full (generated)"),  # its worker processes are starting
        (["pathfinder", "--variant", "64"], "drawing images: "),
    ],
)
def test_ctrl_c_ends_with_one_line_although_workers_get_it_too(
    options: list[str], line: str, start: Start, tmp_path: Path
) -> None:
    process = start("run_lra.py", "data", "prepare", "--tasks", *options, log="log")
    wait_for(tmp_path / "log", line, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate()[0] == ""
    assert process.returncode == 130
    lines = [text for text in (tmp_path / "log").read_text().splitlines() if not text.startswith("preparing ")]
    name = f"{options[0]} {options[2]}"
    assert lines == [f"error: {name}: interrupted; the same command prepares the data"]
    assert {path.suffix for path in (tmp_path / "prepared").iterdir()} <= {".lock", ".work"}
