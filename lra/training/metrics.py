"""The measurements of a run for other programs: `metrics.csv`, and event files for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lra.paths import write_atomically
from lra.training.history import History

FILE = "metrics.csv"
COLUMNS = ("step", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


class MetricsWriter:
    """Writes a run's history into its directory. Resuming repeats no step."""

    def __init__(self, directory: Path, step: int, *, tensorboard: bool = False) -> None:
        """Begin or resume.

        Args:
          step: updates made so far; TensorBoard ignores later steps of a process that was killed
          tensorboard: also write event files into `tensorboard/`
        """
        self._directory, self._written = directory, float(step)
        self._events: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            # The suffix keeps two processes that start within a second from writing the same file.
            directory = directory / "tensorboard"
            self._events = SummaryWriter(str(directory), purge_step=step + 1, filename_suffix=f".{step}")

    def write(self, history: History) -> None:
        """Write the curve and the validations so far."""
        rows: dict[float, dict[str, float]] = {}
        for name, points in (("train", history.curve), ("validation", history.validation)):
            for step, loss, accuracy in points:
                rows.setdefault(step, {}).update({f"{name}_loss": loss, f"{name}_accuracy": accuracy})
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **rows[step]} for step in sorted(rows))
        write_atomically(self._directory / FILE, text.getvalue())
        if self._events is not None:
            for step in sorted(step for step in rows if step > self._written):
                for name, value in rows[step].items():
                    self._events.add_scalar(name.replace("_", "/"), value, int(step))
            self._events.flush()
        self._written = max(rows, default=self._written)

    def close(self) -> None:
        """Close the event files."""
        if self._events is not None:
            self._events.close()
