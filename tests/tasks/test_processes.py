"""Worker processes leave Ctrl-C to the process that started them."""

from __future__ import annotations

import subprocess
import sys

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
