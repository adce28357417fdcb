"""What follows from a record: its column, what it changed of its protocol, its hardware, whether it is retired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from lra import config as cfg
from lra.config import id_hashes
from lra.record.baseline_models import version_of as rule_version
from models.mixer_files import available, version_of
from tasks import available as available_tasks
from tasks import load_task
from tasks.core import copy_name, has_other_sizes

Key = tuple[str, str, int, str]  # task, variant, task version, data hash


def column_key(record: Mapping[str, Any]) -> Key:
    """Return what tells the column of a record from every other."""
    column = record["column"]
    return column["task"], reported_variant(record), column["task_version"], column["data_sha256"]


def reported_variant(record: Mapping[str, Any]) -> str:
    """Return the variant under which a record is reported: what its column says, or that of a copy.

    Records from before copies had a name of their own call them `full`. The number of test examples shows it, unless
    the run was tested on a part of them.
    """
    column, test = record["column"], record["test"]
    variant: str = column["variant"]
    if not test or column["task"] not in available_tasks():
        return variant
    card = load_task(column["task"]).CARD
    if column["task_version"] != card.version or record.get("config", {}).get("limit") == test["count"]:
        return variant
    copy = has_other_sizes(card, variant, column["source"], {"test": test["count"]})
    return copy_name(variant) if copy else variant


def protocol_of(record: Mapping[str, Any]) -> cfg.Protocol:
    """Return today's protocol of a run, for its mixer and options."""
    column, mixer = record["column"], record["mixer"]
    return cfg.protocol_for(cfg.protocol(column["task"], column["protocol"]), mixer["name"], mixer["options"])


def changes(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a run changed of today's protocol, as in `train.steps=500`.

    Settings are compared, whatever the record claims. The variant is not listed: it is part of the column.
    """
    config, base = record["config"], cfg.hashed_fields(protocol_of(record))
    limit = [f"limit={config['limit']}"] if config.get("limit") is not None else []
    return (*limit, *_different(config, {name: base[name] for name in ("max_len", "model", "train")}))


def _different(config: Mapping[str, Any], base: Mapping[str, Any], path: str = "") -> list[str]:
    found = []
    for name, value in base.items():
        if name in config and config[name] != value:
            if isinstance(value, Mapping) and isinstance(config[name], Mapping):
                found += _different(config[name], value, f"{path}{name}.")
            else:
                found.append(f"{path}{name}={config[name]}")
    return found


def hardware(record: Mapping[str, Any]) -> str:
    """Return the hardware of a record: `AMD EPYC 7B13, 2 cores` or `4 x NVIDIA H100`."""
    e = record["environment"]
    if e["backend"] == "cpu":
        return f"{e['device']}, {e['cores']} core{'s' * (e['cores'] != 1)}"
    return (f"{e['device_count']} x " if e["device_count"] > 1 else "") + e["device"]


def computing_code(record: Mapping[str, Any]) -> str | None:
    """Return the SHA-256 of the files that compute the result of a run; None if its record does not name them."""
    computing = record["code"].get("computing")
    return computing.get("sha256") if isinstance(computing, Mapping) else None


def differ_in_code(records: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether records come from different code, by `computing_code` if all have it, else by all files."""
    hashes = [computing_code(record) for record in records]
    return len(set(hashes if None not in hashes else [record["code"]["sha256"] for record in records])) > 1


def retired(record: Mapping[str, Any]) -> list[str]:
    """Return why a record is of an earlier version: of its task, protocol or mixer. An empty list if it is not."""
    column, mixer = record["column"], record["mixer"]
    versions = [("task", column["task_version"], load_task(column["task"]).CARD.version)]
    if record["kind"] == "floor":
        rule = f"trivial baseline {mixer['name']}"
        versions.append((rule, mixer.get("version", 1), rule_version(mixer["name"])))
    else:
        today = cfg.protocol(column["task"], column["protocol"]).version
        versions.append((f"protocol {column['protocol']}", column["protocol_version"], today))
        if mixer["sha256"] is None and (declared := mixer_version(mixer["name"])) is not None:
            versions.append((f"mixer {mixer['name']}", mixer.get("version", 1), declared))
    return [f"{name} version {version}, today's is {today}" for name, version, today in versions if version != today]


@cache
def mixer_version(name: str) -> int | None:
    """Return the version that a mixer of the project declares; None for any other name."""
    return version_of(name) if name in available() else None


def tuning_id(column: Mapping[str, Any], first_run: str) -> str:
    """Return the id of a choice: with the hashes that its first trial has."""
    return "-".join([column["task"], column["variant"], column["protocol"], "tuning", *id_hashes(first_run)])
