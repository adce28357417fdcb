"""Runs of the same settings and data that other code computed. They are kept and reported, and never reused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lra.config import RunConfig, id_hashes
from lra.errors import ConfigError, RecordError, RunError
from lra.paths import open_atomically, runs_directory, write_atomically
from lra.provenance.code import Code, changes, computing
from lra.provenance.environment import code_state
from lra.record import status
from lra.record.files import RecordFile, complete_record_path, read
from lra.record.schema import RunRecord
from lra.typed_json import from_json
from models.user_files import COPIES

FILE = "code.json"


@dataclasses.dataclass(frozen=True)
class KnownCode:
    """What is known of the code of a run.

    files: hash of each part; None: not recorded
    mixer: path of the user's mixer file below `COPIES` in the run's directory; None: it was not copied
    """

    files: Mapping[str, str] | None = None
    git_commit: str | None = None
    git_clean: bool | None = None
    mixer: str | None = None


def write_code(directory: Path, code: Code) -> None:
    """Write the code that computes a run into its directory, when the run begins: hashes, and copies of user files."""
    if not (directory / FILE).exists() or (code.mixer and copied_mixer(directory) is None):
        for name, content in code.sources.items():
            with open_atomically(directory / COPIES / name) as file:
                file.write(content)
        state = code_state()
        known = KnownCode(dict(code.files), state["git_commit"], state["git_clean"], code.mixer)
        write_atomically(directory / FILE, json.dumps(dataclasses.asdict(known), indent=1) + "\n")


def copied_mixer(directory: Path) -> Path | None:
    """Return the copy of the user's mixer file in a run's directory; None if there is none."""
    mixer = _code(directory).mixer
    path = directory / COPIES / (mixer or "")
    return path if path.is_file() else None


def note(config: RunConfig, run_id: str, code: Code) -> str:
    """Return a message about the newest earlier run, for the start of a new one; "" if there is none."""
    directories = [d for d in _same(config, run_id) if _is_started(d)]
    if not directories:
        return ""
    newest = max(directories, key=lambda d: (d / "config.json").stat().st_mtime)
    known = _code(newest)
    source = "use the code that made it"
    if known.git_commit:
        source = f"check out commit {known.git_commit}{'' if known.git_clean else ' (there were changes to it)'}"
    return (
        f"{run_id}: a new run, because its code is not that of {newest.name} ({_state(newest)}), which has the same "
        f"settings and data. That run is not reused.\n"
        f"  {changes(known.files, code.files)}\n"
        f"  `evaluate` and `leaderboard` show the earlier run. To repeat or resume it, {source}."
    )


def of_one_code(runs: Sequence[RecordFile[RunRecord]]) -> list[RecordFile[RunRecord]]:
    """Return those runs of one mixer on one data set that a table shows.

    Of the user's own runs of several codes, these are the runs of the current code or, if there are none, of the newest
    run's code. Committed runs of several codes are shown together, because a change of scores there raises a version.

    Args:
      runs: oldest first
    """
    codes = [f.record.code.computing_sha256 for f in runs]
    if runs[0].origin != "yours" or len(set(codes)) == 1:
        return list(runs)
    chosen = codes[-1]
    with contextlib.suppress(ConfigError, RunError, OSError):  # the mixer's file may be gone
        config = RunConfig.read(runs[-1].path.parent.parent / "config.json")
        current = computing(config).sha256
        chosen = current if current in codes else chosen
    return [f for f, code in zip(runs, codes, strict=True) if code == chosen]


def remove_unbegun(config: RunConfig, run_id: str) -> None:
    """Remove directories that a sweep made for this run with earlier code, if no run started in them."""
    for directory in _same(config, run_id):
        if [path.name for path in directory.iterdir()] == ["config.json"]:
            (directory / "config.json").unlink()
            directory.rmdir()


def _same(config: RunConfig, run_id: str) -> list[Path]:
    """Return the directories of runs of the same settings and data with another id."""
    directories = []
    name = run_id.removesuffix("-".join(id_hashes(run_id)))
    for path in sorted(runs_directory().glob(f"{name}*/config.json")):
        hashes = id_hashes(path.parent.name)
        if path.parent.name != run_id and hashes and hashes[1] == id_hashes(run_id)[1]:
            try:
                same = RunConfig.read(path).sha256 == config.sha256
            except ConfigError:
                continue
            directories += [path.parent] if same else []
    return directories


def _is_started(directory: Path) -> bool:
    return any((directory / name).exists() for name in ("records", "checkpoints"))


def _state(directory: Path) -> str:
    """Return `complete, test accuracy 36.10%` or `stopped at step 300 of 1,200`."""
    with contextlib.suppress(RecordError):
        if (test := read(complete_record_path(directory)).test) is not None:
            return f"complete, test accuracy {test.accuracy:.2%}"
    run = status.read_run(directory)
    return "unreadable" if run is None else f"{run.state} at step {run.step or 0:,} of {run.steps:,}"


def _code(directory: Path) -> KnownCode:
    with contextlib.suppress(OSError, ValueError):
        return from_json(KnownCode, (directory / FILE).read_text("utf-8"))
    try:
        code = read(complete_record_path(directory)).code
    except RecordError:
        return KnownCode()
    return KnownCode(code.computing.files if code.computing else None, code.git_commit, code.git_clean)
