"""Signals that stop a run after the step in progress."""

from __future__ import annotations

import os
import signal

import pytest

from lra.runtime.signals import stop_on_signal


def test_only_a_second_ctrl_c_ends_a_run_at_once() -> None:
    """Clusters send SIGTERM several times."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        with stop_on_signal() as stop:
            assert callable(signal.getsignal(number))  # else it would end the tests
            os.kill(os.getpid(), number)
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
                assert stop.wait(1)
            except KeyboardInterrupt:
                pytest.fail("a second SIGTERM ended it")
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
