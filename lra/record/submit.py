"""From a run of this machine to a committed record: `runs/` to `results/`, which is only ever added to."""

from __future__ import annotations

import sys
from pathlib import Path

from lra.errors import RecordError, RunError
from lra.paths import results_directory, runs_directory
from lra.record import files as rec
from lra.record.validate import validate


def submit(run_name: str) -> list[Path]:
    """Copies the newest record of a run, complete, truncated or diverged, to `results/`; never replaces one.

    Args:
      run_name: of a run in `runs/`, or a path to its directory

    Returns:
      the records in `results/`, those included that were there already with the same content

    Raises:
      RunError: there is no such run, it has no record yet, or `results/` cannot be written.
      RecordError: a record of it FAILs, or another record of the same run is committed already. Nothing was copied.
    """
    directory = Path(run_name) if Path(run_name).is_dir() else runs_directory() / run_name
    if not ((directory / "config.json").exists() or (directory / "records").is_dir()):
        places = [*runs_directory().glob("*/config.json"), *runs_directory().glob("*/records")]
        there = ", ".join(sorted({p.parent.name for p in places})) or "none"
        raise RunError(f"no run {run_name!r} in {runs_directory()}; there are: {there}")
    records = directory / "records"
    paths = sorted(p for p in records.glob("*.json") if not p.name.startswith("."))
    if not paths:
        raise RunError(f"{directory.name} has no record yet: it was not finished; `train` goes on with it")
    told = [f"{r.path}: {problem}" for r in validate(paths) for problem in r.problems]
    if told:
        listed = "\n  ".join(told)
        raise RecordError(
            f"nothing was copied, validation FAILs:\n  {listed}\nRecords are not edited, and committed ones not "
            f"replaced: run it again from an unchanged suite, or with another seed"
        )
    # Only now are ids plain names and protocols known ones, fit to be parts of a path.
    newest = rec.find([(records, "committed")])  # in one directory, whatever lies in those of other runs
    made: list[Path] = []
    targets = []
    try:
        for found in newest:
            target = _place(found.record) / found.path.name
            targets.append(target)
            if target.exists() and rec.read(target) == found.record:
                print(f"{target}: there already, with the same content", file=sys.stderr)
            else:
                made.append(rec.write(target.parent, found.record))
    except BaseException as error:
        for path in made:
            path.unlink()
        if isinstance(error, FileExistsError):
            raise RecordError(f"{target}: has other content, and is never replaced; nothing was copied") from error
        if isinstance(error, OSError):
            raise RunError(f"{target}: cannot be written ({error}); nothing was copied") from error
        raise
    return targets


def _place(record: dict) -> Path:
    """The directory of a committed record: of its protocol; floors, which have none, have one of their own."""
    return results_directory() / ("floors" if record["kind"] == "floor" else record["column"]["protocol"])
