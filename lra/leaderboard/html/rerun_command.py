"""The shell command that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from lra import config as cfg
from lra.record.facts import protocol_of
from lra.record.schema import Column, RunRecord
from tasks import load_task
from tasks.core import GENERATED, OFFICIAL, SAMPLE


def command(record: RunRecord) -> str:
    """Return `python run_lra.py train ...` with all settings in which the run differs from its protocol.

    It is incomplete for a mixer from a file; see `caveats`.
    """
    column, config, mixer = record.column, record.config.as_json(), record.mixer
    words = ["python", "run_lra.py", "train", "--task", column.task, "--mixer", mixer.name]
    words += ["--protocol", column.protocol, "--seed", str(record.seed)]
    base = cfg.hashed_fields(protocol_of(record))
    for name in ("variant", "max_len"):
        if config.get(name) != base[name]:
            words += _flag(name, config.get(name))
    words += _source(column)
    if config.get("limit") is not None:
        words += _flag("limit", config["limit"])
    for group in ("model", "train"):
        inside = config.get(group)
        for name, value in base[group].items():
            if isinstance(inside, Mapping) and name in inside and inside[name] != value:
                words += _flag(f"{group}.{name}", inside[name])
    if mixer.options:
        words += ["--mixer-options", *(f"{name}={value}" for name, value in mixer.options.items())]
    return shlex.join(map(str, words))


def caveats(record: RunRecord) -> list[str]:
    """Return what a reader must do before the command gives the same run."""
    code, messages = record.code, []
    if code.git_commit:
        clean = "" if code.git_clean else ", with changes that are not in it"
        messages.append(f"Code: commit {code.git_commit}{clean}.")
    else:
        messages.append("Code: not from a commit.")
    if record.mixer.sha256 is not None:
        messages.append("The mixer is from a file of its author; the record has only its hash.")
    return messages


def _source(column: Column) -> list[str]:
    """Return the flag that selects the data of a column; none for the default source."""
    source = next((source for source in (SAMPLE, GENERATED) if column.source.startswith(source)), OFFICIAL)
    default = load_task(column.task).CARD.sources[0]
    return [] if source == default else _flag("source", source)


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        group, _, last = flag.rpartition(".")
        off = f"{group}.no-{last}" if group else f"--no-{last.removeprefix('--')}"
        return [flag if value else off]
    if isinstance(value, list | tuple):
        return [flag, *map(str, value)]
    return [flag, str(value)]
