"""What follows from a record: its column, its changes of the protocol, and whether it is retired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from lra import config as cfg
from lra.record.baseline_models import version_of as rule_version
from lra.record.schema import BaselineRecord, Column, Record, RunRecord, TuningRecord
from models.mixer_files import available, version_of
from tasks import load_task
from tasks.core import base_variant, copy_name, has_other_sizes

Key = tuple[str, str, int, str]  # task, variant, task version, data hash


def column_key(record: Record) -> Key:
    """Return what tells the column of a record from every other."""
    column = record.column
    return column.task, reported_variant(record), column.task_version, column.data_sha256


def reported_variant(record: Record) -> str:
    """Return the variant under which a record is reported: what its column says, or that of a copy.

    Records from before copies had a name of their own call them `full`. The number of test examples shows it, unless
    the run was tested on a part of them.
    """
    column, test = record.column, record.test
    card = load_task(column.task).CARD
    limit = record.config.limit if isinstance(record, RunRecord) else None
    if test is None or column.task_version != card.version or limit == test.count:
        return column.variant
    copy = has_other_sizes(card, column.variant, column.source, {"test": test.count})
    return copy_name(column.variant) if copy else column.variant


def protocol_of(record: RunRecord | TuningRecord) -> cfg.Protocol:
    """Return today's protocol of a run, for its mixer and options."""
    column, mixer = record.column, record.mixer
    return cfg.protocol_for(cfg.protocol(column.task, column.protocol), mixer.name, mixer.options)


def changes(record: RunRecord) -> tuple[str, ...]:
    """Return what a run changed of today's protocol, as in `train.steps=500`.

    Settings are compared, whatever the record claims. The variant is not listed: it is part of the column.
    """
    limit = [f"limit={record.config.limit}"] if record.config.limit is not None else []
    config, base = record.config.as_json(), cfg.hashed_fields(protocol_of(record))
    recipe = [f"recipe={config.get('recipe')}"] if config.get("recipe") != base.get("recipe") else []
    return (*limit, *recipe, *changed_settings(config, base))


def changed_settings(config: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Return the settings of a configuration that differ from a protocol's, as in `train.steps=500`."""
    return _different(config, {name: base[name] for name in ("max_len", "model", "train")})


def _different(config: Mapping[str, Any], base: Mapping[str, Any], path: str = "") -> list[str]:
    different = []
    for name, value in base.items():
        if name in config and config[name] != value:
            if isinstance(value, Mapping) and isinstance(config[name], Mapping):
                different += _different(config[name], value, f"{path}{name}.")
            else:
                different.append(f"{path}{name}={config[name]}")
    return different


def differ_in_code(records: Sequence[Record]) -> bool:
    """Return whether records come from different code: of the files that computed them, or of all files."""
    hashes = [record.code.computing_sha256 for record in records]
    return len(set(hashes if None not in hashes else [record.code.sha256 for record in records])) > 1


def retired(record: Record) -> list[str]:
    """Return why a record is of an earlier version: of its task, protocol or mixer. An empty list if it is not."""
    column, mixer = record.column, record.mixer
    versions = [("task", column.task_version, load_task(column.task).CARD.version)]
    if not isinstance(record, BaselineRecord):
        current = cfg.protocol(column.task, record.column.protocol).version
        versions.append((f"protocol {column.protocol}", record.column.protocol_version, current))
        if mixer.sha256 is None and (declared := mixer_version(mixer.name)) is not None:
            versions.append((f"mixer {mixer.name}", mixer.version, declared))
    else:
        versions.append((f"trivial baseline {mixer.name}", mixer.version, rule_version(mixer.name)))
    reasons = [f"{name} version {old}, today's is {current}" for name, old, current in versions if old != current]
    if base_variant(column.variant) in load_task(column.task).CARD.former_variants:
        reasons.append(f"variant {column.variant} of an earlier version of the suite")
    return reasons


@cache
def mixer_version(name: str) -> int | None:
    """Return the version that a mixer of the project declares; None for any other name."""
    return version_of(name) if name in available() else None


def tuning_id(column: Column, first_run: str) -> str:
    """Return the id of a choice: with the hashes that its first trial has."""
    return "-".join([column.task, column.variant, str(column.protocol), "tuning", *cfg.id_hashes(first_run)])
