"""Submission: a record of this machine's `runs/` is copied to the committed `results/`, where none is ever replaced."""

from __future__ import annotations

import sys
from pathlib import Path

from lra.errors import RecordError, RunError
from lra.paths import results_directory
from lra.record import files
from lra.record.checks import ran_from_a_commit
from lra.record.facts import protocol_of
from lra.record.schema import Record, RunRecord
from lra.record.validate import validate


def submit(run_name: str) -> list[Path]:
    """Copy the newest record of a run (complete, truncated or diverged) to `results/`.

    Args:
      run_name: of a run in `runs/`, or a path to its directory

    Returns:
      The paths in `results/`, including those that existed with the same content.

    Raises:
      RunError: there is no such run, it has no record yet, or `results/` cannot be written.
      RecordError: a record FAILs validation, another record of the same run is committed, the run was tested on a part
        of the test split or planned with fewer steps than its protocol has, or its code is not that of a commit.
        Nothing was copied.
    """
    directory = files.run_directory(run_name)
    records = directory / "records"
    paths = sorted(p for p in records.glob("*.json") if not p.name.startswith("."))
    if not paths:
        raise RunError(f"{directory.name} has no record yet, because it is not finished; `train` resumes it")
    if problems := [f"{r.path}: {problem}" for r in validate(paths) for problem in r.problems]:
        listed = "\n  ".join(problems)
        raise RecordError(
            f"nothing was copied, validation FAILs:\n  {listed}\nRecords are not edited, and committed ones not "
            f"replaced: run it again from an unchanged suite, or with another seed"
        )
    found = files.find([(records, "committed")])  # the files of one directory
    if shortened := [change for f in found for change in _shortened(f.record)]:
        raise RecordError(
            f"nothing was copied: this run was shortened ({', '.join(shortened)}), and results/ has only runs with all "
            "steps of their protocol and the whole test split; train again without these options"
        )
    if not all(ran_from_a_commit(f.record) for f in found):
        raise RecordError(
            "nothing was copied: this run's code is not that of a git commit, so nobody could look up what ran; commit "
            "what you changed in lra/, models/, tasks/ or configs/, in a git clone of the project, and run it again"
        )
    # Only now are ids plain names and protocols known ones, fit to be parts of a path.
    targets: list[Path] = []
    copied: list[Path] = []
    try:
        for f in found:
            target = results_directory() / (f.record.column.protocol or "floors") / f.path.name
            targets.append(target)
            if target.exists() and files.read(target) == f.record:
                print(f"{target}: there already, with the same content", file=sys.stderr)
            else:
                copied.append(files.write(target.parent, f.record))
    except BaseException as error:
        for path in copied:
            path.unlink()
        if isinstance(error, FileExistsError):
            raise RecordError(f"{target}: has other content, and is never replaced; nothing was copied") from error
        if isinstance(error, OSError):
            raise RunError(f"{target}: cannot be written ({error}); nothing was copied") from error
        raise
    return targets


def _shortened(record: Record) -> list[str]:
    """Return the settings by which a run was planned shorter than its protocol, as in `limit=16`."""
    if not isinstance(record, RunRecord):
        return []
    limit, steps = record.config.limit, record.steps.planned
    shortened = [f"limit={limit}"] if limit is not None else []
    return shortened + ([f"train.steps={steps}"] if steps < protocol_of(record).train.steps else [])
