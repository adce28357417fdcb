"""The recorded settings of every protocol, recipe, task and mixer, so that no number changes unnoticed.

    python -m tests.golden

records them again in `protocols.json`, `recipes.json`, `tasks.json` and `mixers.json`. It refuses, and writes
nothing, if a setting that affects results has changed while the version of its protocol, recipe, task or mixer has not
been raised.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lra import config as cfg
from lra.config import TASKS, Train
from models import mixers as mixer_files
from tasks import load_task

DIRECTORY = Path(__file__).resolve().parent
COMMAND = "python -m tests.golden"
MISSING = "missing"

Settings = dict[str, dict[str, Any]]  # by the name of a protocol, task or mixer; each has a `version`


def plain(value: Any) -> Any:
    """Convert dataclasses and mappings to what JSON can hold."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def protocols() -> Settings:
    """Return each protocol of each task without its texts, under `listops small`."""
    settings = {}
    for task in TASKS:
        for name, protocol in cfg.protocols(task).items():
            fields = {key: value for key, value in plain(protocol).items() if key not in ("about", "minutes")}
            assert (fields.pop("task"), fields.pop("name"), fields.pop("recipe")) == (task, name, None)
            for form in fields.get("forms", {}).values():
                form.pop("source", None)
            settings[f"{task} {name}"] = fields
    return settings


def recipes() -> Settings:
    """Return each recipe of each task, under `listops shuffle`."""
    return {f"{task} {name}": plain(recipe) for task in TASKS for name, recipe in cfg.recipes(task).items()}


def tasks() -> Settings:
    """Return the card of each task without its texts and functions."""
    omitted = ("name", "title", "about", "tokenizer", "obtain", "licence", "citation")
    omitted += ("sample_classes", "to_text", "write_official", "copy_notes", "former_variants")
    settings = {}
    for task in TASKS:
        card = {name: value for name, value in plain(load_task(task).CARD).items() if name not in omitted}
        for variant in card["variants"].values():
            del variant["about"]
        settings[task] = card
    return settings


def mixers() -> Settings:
    """Return version, default options and claimed complexity of each mixer."""
    settings = {}
    for name in mixer_files.available():
        found = mixer_files.resolve(name)
        version = getattr(importlib.import_module(f"models.mixers.{name}"), "VERSION", 1)
        defaults = {option: plain(default) for option, (_, default) in mixer_files.options(found.cls).items()}
        settings[name] = {"version": version, "complexity": plain(found.complexity), "options": defaults}
    return settings


@dataclasses.dataclass(frozen=True)
class Kind:
    """One golden file.

    current:  returns the settings of the code as it is
    affects:  whether a place, `train.steps`, affects results, so that a change needs a new version
    admitted: whether such a place may be new under the same version, given the recorded places
    """

    current: Callable[[], Settings]
    affects: Callable[[str], bool]
    admitted: Callable[[str, set[str]], bool]


_NO_EFFECT = ("version", "sources", "balanced", "images", "baselines")  # of a card, on results
_EXECUTION = {f"train.{field.name}" for field in dataclasses.fields(Train) if field.metadata.get("unhashed")}


def _affects_protocol(place: str) -> bool:
    return (
        place.partition(".")[0] in ("variant", "max_len", "source", "model", "train", "forms")
        and place not in _EXECUTION
    )


def _is_of_other_variant(place: str, places: set[str]) -> bool:
    """Whether a place is of a variant that these places do not have."""
    group, _, rest = place.partition(".")
    prefix = f"variants.{rest.partition('.')[0]}."
    return group == "variants" and not any(known.startswith(prefix) for known in places)


KINDS = {
    # A new field of `Model` or `Train` has a default that computes what was computed without it. A new form does not.
    "protocols": Kind(protocols, _affects_protocol, lambda place, _: place.startswith(("model.", "train.", "source"))),
    "recipes": Kind(recipes, lambda place: place != "version", lambda *_: False),
    "tasks": Kind(
        tasks,
        lambda place: place not in _NO_EFFECT,
        _is_of_other_variant,
    ),
    "mixers": Kind(mixers, lambda place: place.startswith("options."), lambda *_: True),
}


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value under its place, `model.layers`."""
    places: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            places |= flat(value, f"{prefix}{name}.")
        else:
            places[f"{prefix}{name}"] = value
    return places


def differences(recorded: Settings, current: Settings) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return the recorded and the current value of each place, by (name, place), where they differ."""
    found = {}
    for name in recorded | current:
        before, after = flat(recorded.get(name, {})), flat(current.get(name, {}))
        for place in before | after:
            pair = before.get(place, MISSING), after.get(place, MISSING)
            if pair[0] != pair[1] or type(pair[0]) is not type(pair[1]):
                found[name, place] = pair
    return found


def refused(kind: Kind, recorded: Settings, current: Settings) -> list[str]:
    """Return a line for each change that needs a new version and has none."""
    lines = []
    for (name, place), (before, after) in differences(recorded, current).items():
        if name not in recorded or name not in current:
            continue  # a new protocol, task or mixer, or one that is gone
        old, new = recorded[name]["version"], current[name]["version"]
        is_new = before == MISSING and kind.admitted(place, set(flat(recorded[name])))
        is_gone = after == MISSING and _is_of_other_variant(place, set(flat(current[name])))  # its records are old
        if new < old or (new == old and kind.affects(place) and not (is_new or is_gone)):
            lines.append(f"{name}: {place} was {before!r}, is {after!r}, but the version is still {new}: raise it")
    return lines


def path(kind: str) -> Path:
    return DIRECTORY / f"{kind}.json"


def read(kind: str) -> Settings:
    return json.loads(path(kind).read_text("utf-8"))


def text(settings: Settings) -> str:
    """Return the settings as JSON, one line for each group of a protocol, task or mixer."""
    entries = []
    for name, fields in settings.items():
        groups = {json.dumps(group): json.dumps(value, ensure_ascii=False) for group, value in fields.items()}
        lines = ",\n".join(f"  {group}: {value}" for group, value in groups.items())
        entries.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def record() -> list[str]:
    """Write all golden files, or none and return why not."""
    current = {name: kind.current() for name, kind in KINDS.items()}
    recorded = {name: read(name) if path(name).exists() else {} for name in KINDS}
    problems = [line for name, kind in KINDS.items() for line in refused(kind, recorded[name], current[name])]
    if not problems:
        for name, settings in current.items():
            path(name).write_text(text(settings), "utf-8")
    return problems
