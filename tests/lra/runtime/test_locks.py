"""One process at a time works on a run, and `has_process` tells whether one does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lra.errors import RunError
from lra.paths import ROOT
from lra.runtime import locks
from lra.runtime.locks import has_process, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from lra.runtime.locks import run_lock

with run_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the lock of `tmp_path`."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_the_lock_of_another_process_is_an_error_until_that_process_is_killed(
    tmp_path: Path, other_process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.1)
    assert has_process(tmp_path)
    with pytest.raises(RunError, match="another process is working on this run"), run_lock(tmp_path):
        pass
    other_process.kill()
    other_process.wait()
    assert not has_process(tmp_path)
    with run_lock(tmp_path):
        assert has_process(tmp_path)
    assert not has_process(tmp_path)


def test_has_process_keeps_no_process_from_its_lock(tmp_path: Path) -> None:
    end = threading.Event()

    def ask() -> None:
        while not end.is_set():
            has_process(tmp_path)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(100):
            with run_lock(tmp_path):
                assert has_process(tmp_path)
    finally:
        end.set()
        for asker in askers:
            asker.join()


def test_has_process_changes_no_file(tmp_path: Path) -> None:
    assert not has_process(tmp_path)
    assert not has_process(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
    with run_lock(tmp_path):
        (tmp_path / locks.LOCK_FILE).chmod(0o444)
        assert has_process(tmp_path)


def test_without_flock_the_lock_is_held_as_long_as_its_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_flock(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.1)
    with contextlib.ExitStack() as stack:
        with pytest.warns(UserWarning, match="flock not supported on this filesystem"):
            stack.enter_context(run_lock(tmp_path))
        assert has_process(tmp_path)
        with (
            pytest.warns(UserWarning, match="flock not supported on this filesystem"),
            pytest.raises(RunError, match="another process is working on this run"),
            run_lock(tmp_path),
        ):
            pass
    assert not has_process(tmp_path)
