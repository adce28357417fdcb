"""The cells of a sweep on a Slurm cluster, through submitit: one job array, an element for each cell.

Near its time limit, and where the cluster says so before it preempts a job, Slurm sends a signal of warning
(SIGUSR2; SUBMITIT_PREEMPT_SIGNAL names another): the run saves its state, the job goes back into the queue, and goes
on from there when it starts again. Imports neither jax nor, before something is submitted, submitit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.config import Slurm
from lra.errors import Interrupted, RunError
from lra.paths import data_directory, prepared_directory, runs_directory
from lra.sweep.job import RUN_LRA, Cell

if TYPE_CHECKING:
    import submitit

WARNING_SECONDS = 120  # for the step under way and a checkpoint
LOOK_SECONDS = 0.2  # a signal just before a wait without end could be missed
TIME_LIMITS = 100  # that a job may reach; a run that comes no further would go round for ever


@dataclasses.dataclass
class Element:
    """A job of the array: runs its cell in a process of its own; submitit calls `checkpoint` on the warning."""

    cell: Cell
    environment: dict[str, str]
    directory: str
    _child: subprocess.Popen[bytes] | None = dataclasses.field(default=None, init=False)

    def __call__(self) -> None:
        told_to_stop = threading.Event()

        def stop(number: int, frame: Any) -> None:
            told_to_stop.set()
            self._stop()

        signal.signal(signal.SIGTERM, stop)
        self._child = subprocess.Popen(self.cell.command, env={**os.environ, **self.environment}, cwd=self.directory)
        self._wait()
        status = self._child.wait()
        while status == Interrupted.exit_status or (status and told_to_stop.is_set()):
            # The warning is about to come, or Slurm ends this job, by its user's wish or to requeue it. A job that
            # ends by itself before is not requeued; one that requeued itself whenever it is told to stop could not be
            # cancelled.
            time.sleep(LOOK_SECONDS)
        if status:
            self.cell.failed(
                f"exit status {status} before its first step; its job's log, in slurm/ beside the run, says why"
            )
            raise RunError(f"{self.cell.name}: exit status {status}")

    def checkpoint(self) -> Any:
        """Ends the cell's process, which saves its state; what the requeued job will run."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        self._wait()
        return DelayedSubmission(Element(self.cell, self.environment, self.directory))

    def _stop(self) -> None:
        if self._child is not None:
            self._child.terminate()

    def _wait(self) -> None:
        """Waits for the process to end, without a lock: a signal's handler may do so while what it interrupts does."""
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                while os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                    time.sleep(LOOK_SECONDS)


def submit(cells: Sequence[Cell], options: Slurm) -> list[str]:
    """Submits a job array; returns the job of each cell.

    Raises:
      RunError: submitit is missing, this is no machine of a Slurm cluster, or sbatch refuses.
    """
    executor = make_executor(options)
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError

    environment = {
        "LRA_RUNS": str(runs_directory()),
        "LRA_DATA": str(data_directory()),
        "LRA_PREPARED": str(prepared_directory()),
    }
    elements = [Element(cell, environment, str(Path.cwd())) for cell in cells]
    try:
        return [job.job_id for job in executor.submit_array(elements)]
    except (FailedSubmissionError, UncompletedJobError) as error:
        raise RunError(f"sbatch refused: {error}") from error


def make_executor(options: Slurm) -> submitit.Executor:
    """submitit's executor, with what each job asks for."""
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise RunError("--launcher slurm needs submitit: pip install submitit, or '.[slurm]' in this folder") from error
    try:
        executor = SlurmExecutor(logs_directory(), max_num_timeout=TIME_LIMITS, python=python_command())
    except RuntimeError as error:
        raise RunError("--launcher slurm: there is no srun here; is this a machine of a Slurm cluster?") from error
    extra = (option.partition("=") for option in options.extra)
    executor.update_parameters(
        job_name="lra",
        partition=options.partition,
        time=options.minutes,
        gres=f"gpu:{options.gpus}" if options.gpus else None,
        cpus_per_task=options.cpus,
        mem=f"{options.memory_gb}GB",
        array_parallelism=options.at_once,
        signal_delay_s=WARNING_SECONDS,
        srun_args=[f"--cpus-per-task={options.cpus}"],  # which srun no longer takes from sbatch
        additional_parameters={"requeue": True, **{name: value or True for name, _, value in extra}},
    )
    return executor


def python_command() -> str:
    """How a job starts Python, for the project is not installed and a job may start anywhere."""
    return f"env PYTHONPATH={shlex.quote(str(RUN_LRA.parent))} {shlex.quote(sys.executable)}"


def logs_directory() -> Path:
    """Where jobs write what they print, by their job ids."""
    return runs_directory() / "slurm"
