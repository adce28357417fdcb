"""Worker processes leave Ctrl-C to the process that started them, and do not outlive it for long."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psutil
import pytest

from tasks import processes
from tests.conftest import ROOT

SCRIPT = """
import functools, signal
from tasks.processes import map_in_order

blocked = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK)
print([signal.SIGINT in signals for signals in map_in_order(blocked, [(), ()], 2)], blocked(()))
"""


def test_workers_do_not_get_ctrl_c() -> None:
    """In a new process, because the first call starts helpers of multiprocessing that unblock signals."""
    assert subprocess.check_output([sys.executable, "-c", SCRIPT], cwd=ROOT, text=True) == "[True, True] set()\n"


ORPHANS = """
import os, time
from tasks import processes

processes.IDLE_SECONDS = 1.0
pool = processes.process_pool(2)
print(*{pool.submit(os.getpid).result() for _ in range(8)}, flush=True)
time.sleep(60)
"""


def test_workers_end_after_their_process_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert workers
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive


def test_ctrl_c_during_the_start_of_a_worker_acts_after_it() -> None:
    """Also if another thread gets the signal, in which it is not blocked."""
    starting, started = threading.Event(), []

    def hear_ctrl_c() -> None:
        starting.wait()
        signal.raise_signal(signal.SIGINT)

    class Pool:
        def submit(self, function: Any) -> None:
            starting.set()
            thread.join()
            time.sleep(0.01)  # an interrupt of this thread would be raised here
            started.append(function)

    thread = threading.Thread(target=hear_ctrl_c)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        processes._submit(Pool(), print)  # type: ignore[arg-type]
    assert started == [print]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
