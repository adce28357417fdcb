"""The jobs of a sweep on a Slurm cluster, submitted by submitit as one job array.

Before its time limit, and on many clusters before a preemption, a job receives a warning signal (SIGUSR2;
SUBMITIT_PREEMPT_SIGNAL selects another). The run then saves its state, the job is requeued, and the run resumes when
the job starts again. Imports neither jax nor, before something is submitted, submitit.
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
from lra.sweep.job import RUN_LRA, Job

if TYPE_CHECKING:
    import submitit

WARNING_SECONDS = 120  # before the time limit; enough for the step in progress and a checkpoint
POLL_SECONDS = 0.2  # a wait without a timeout could miss a signal that arrives just before it
MAX_REQUEUES = 100  # at time limits; a run that makes no progress would be requeued forever


@dataclasses.dataclass
class ArrayElement:
    """An element of the job array: runs its job in a child process; submitit calls `checkpoint` on the warning."""

    job: Job
    environment: dict[str, str]
    directory: str
    _child: subprocess.Popen[bytes] | None = dataclasses.field(default=None, init=False)

    def __call__(self) -> None:
        stop_requested = threading.Event()

        def stop(number: int, frame: Any) -> None:
            stop_requested.set()
            self._stop()

        signal.signal(signal.SIGTERM, stop)
        self._child = subprocess.Popen(self.job.command, env={**os.environ, **self.environment}, cwd=self.directory)
        self._wait()
        status = self._child.wait()
        while status == Interrupted.exit_status or (status and stop_requested.is_set()):
            # Either the warning follows, or Slurm ends this job: it was cancelled, or will be requeued. If the job
            # ended by itself now, it would not be requeued; if it requeued itself on every stop, it could not be
            # cancelled.
            time.sleep(POLL_SECONDS)
        if status:
            self.job.report_failure(f"exit status {status} before its first step; see its job's log in runs/slurm/")
            raise RunError(f"{self.job.name}: exit status {status}")

    def checkpoint(self) -> Any:
        """Stop the child process, which saves its state, and return what the requeued job runs."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        self._wait()
        return DelayedSubmission(ArrayElement(self.job, self.environment, self.directory))

    def _stop(self) -> None:
        if self._child is not None:
            self._child.terminate()

    def _wait(self) -> None:
        """Wait for the child process; without a lock, because a signal handler may wait at the same time."""
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                while os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                    time.sleep(POLL_SECONDS)


def submit(jobs: Sequence[Job], options: Slurm) -> list[str]:
    """Submit a job array, and return the Slurm job id of each job.

    Raises:
      RunError: submitit is missing, this machine does not belong to a Slurm cluster, or sbatch refuses
    """
    executor = make_executor(options)
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError

    environment = {
        "LRA_RUNS": str(runs_directory()),
        "LRA_DATA": str(data_directory()),
        "LRA_PREPARED": str(prepared_directory()),
    }
    elements = [ArrayElement(job, environment, str(Path.cwd())) for job in jobs]
    try:
        return [submitted.job_id for submitted in executor.submit_array(elements)]
    except (FailedSubmissionError, UncompletedJobError) as error:
        raise RunError(f"sbatch refused: {error}") from error


def make_executor(options: Slurm) -> submitit.Executor:
    """Return submitit's executor with the resources of each job."""
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise RunError("--launcher slurm needs submitit: pip install submitit, or '.[slurm]' in this folder") from error
    try:
        executor = SlurmExecutor(logs_directory(), max_num_timeout=MAX_REQUEUES, python=python_command())
    except RuntimeError as error:
        raise RunError("--launcher slurm: srun was not found; run this on a machine of a Slurm cluster") from error
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
    """Return how a job starts Python: with the project in its path, because it is not installed."""
    return f"env PYTHONPATH={shlex.quote(str(RUN_LRA.parent))} {shlex.quote(sys.executable)}"


def logs_directory() -> Path:
    """Return the directory of what jobs print, in files named by job ids."""
    return runs_directory() / "slurm"
