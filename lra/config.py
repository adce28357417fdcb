"""The configuration of a run: protocol, overrides, and the hash that identifies it. Imports neither jax nor flax.

A *protocol* fixes everything that is not the mixer: length, encoder, optimizer, schedule, selection. `resolve` makes a
`RunConfig` from a protocol, a mixer, a seed and the user's overrides. Fields marked `unhashed_field` say how a run is
executed, not what it computes, so they are not part of the hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt

from lra.errors import ConfigError
from lra.protocols import HASHED_IF_SET, Model, Positive, Protocol, Recipe, Train, unhashed_field, with_recipe
from lra.protocols import Expected as Expected
from lra.protocols import Form as Form
from lra.protocols import protocol_for as protocol_for
from lra.typed_json import checked, from_json
from tasks import available
from tasks.errors import did_you_mean

OVERRIDABLE = ("max_len", "variant", "model", "train")


def protocols(task: str) -> Mapping[str, Protocol]:
    """Return the protocols of a task by name, as `configs/<task>.py` lists them; none if there is no such file."""
    name = f"configs.{task}"
    return importlib.import_module(name).PROTOCOLS if importlib.util.find_spec(name) else {}


def recipes(task: str) -> Mapping[str, Recipe]:
    """Return the recipes of a task by name, as `configs/<task>.py` lists them."""
    name = f"configs.{task}"
    found = getattr(importlib.import_module(name), "RECIPES", ()) if importlib.util.find_spec(name) else ()
    return {recipe.name: recipe for recipe in found}


TASKS = available()
PROTOCOLS = tuple(dict.fromkeys(name for task in TASKS for name in protocols(task)))
RECIPES = tuple(dict.fromkeys(name for task in TASKS for name in recipes(task)))
PROTOCOL_NAMES = tuple(name for base in PROTOCOLS for name in (base, *(f"{base}+{recipe}" for recipe in RECIPES)))


def short_hashes(config_sha256: str, data_sha256: str, code_sha256: str | None) -> list[str]:
    """Return the hashes at the end of a run id: two, or three if the hash of the code is known."""
    return [config_sha256[:8], data_sha256[:6], *([] if code_sha256 is None else [code_sha256[:6]])]


def id_hashes(run_id: str) -> list[str]:
    """Return the two or three `short_hashes` at the end of a run id; an empty list if there are none."""
    found = re.search(r"-([0-9a-f]{8})-([0-9a-f]{6})(?:-([0-9a-f]{6}))?\Z", run_id)
    return [part for part in found.groups() if part is not None] if found else []


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run, stored as `config.json` in its directory."""

    task: str
    task_version: int
    variant: str
    protocol: str
    protocol_version: int
    modified: bool  # whether an override changed a hashed field of the protocol
    mixer: str = dataclasses.field(
        metadata={"unhashed": True}
    )  # name or path, from which it is imported; the label identifies it
    mixer_label: str
    mixer_options: Mapping[str, Any]
    mixer_sha256: str | None  # of the user's own file
    seed: Annotated[int, Ge(0), Lt(2**32)]  # JAX uses 32 bits of a seed
    max_len: Positive
    limit: Positive | None  # of examples per evaluation
    model: Model
    train: Train
    recipe: Recipe | None = dataclasses.field(default=None, metadata=HASHED_IF_SET)
    # None: the first available source of the task; the run id contains the hash of the data
    source: str | None = unhashed_field(None)

    @property
    def sha256(self) -> str:
        """SHA-256 of all settings that affect the result."""
        return hashlib.sha256(json.dumps(hashed_fields(self), sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Return the configuration in a run's `config.json`.

        Raises:
          ConfigError: the file does not exist, or is not of this version of the suite
        """
        try:
            return cls.from_text(path.read_text("utf-8"))
        except (OSError, ValueError, ConfigError) as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_text(cls, text: str) -> RunConfig:
        """Invert `as_text`.

        Raises:
          ConfigError: a field is missing or unknown, or has a wrong type or an invalid value
        """
        try:
            config = from_json(cls, text)
        except ValueError as error:
            raise ConfigError(f"not the configuration of a run of this version ({error})") from error
        return check(config)

    def as_text(self) -> str:
        """Return the content of `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def run_name(self, variant: str | None = None) -> str:
        """Return the readable part of a run's id.

        Args:
          variant: the variant in the leaderboard column (`Prepared.column_variant`); None: the configured one
        """
        mixer = "".join(c if c.isascii() and c.isalnum() else "_" for c in self.mixer_label).strip("_")[:40]
        return f"{self.task}-{variant or self.variant}-{self.protocol}-{mixer}-s{self.seed}"

    def run_id(self, data_sha256: str, code_sha256: str | None, variant: str | None = None) -> str:
        """Return the name of a run's directory and record: the readable part, and hashes of settings, data and code.

        Args:
          code_sha256: of the run's code (`lra.provenance.code`); None: not recorded
          variant: see `run_name`
        """
        return "-".join([self.run_name(variant), *short_hashes(self.sha256, data_sha256, code_sha256)])


@dataclasses.dataclass(frozen=True)
class Slurm:
    """Resources of each job of a sweep on a Slurm cluster."""

    partition: str | None = None
    """Default: the default partition of the cluster."""
    minutes: int = 240
    """Time limit; a job that reaches it is requeued and resumes."""
    gpus: int = 1
    cpus: int = 4
    memory_gb: int = 16
    at_once: int = 32
    """Maximum number of jobs that run at the same time."""
    extra: tuple[str, ...] = ()
    """Further options of sbatch, as in `--slurm.extra account=lab constraint=a100 exclusive`."""


def hashed_fields(value: Any) -> Any:
    """Return a dataclass as plain JSON values, without fields that are marked as not hashed."""
    if dataclasses.is_dataclass(value):
        hashed = [f for f in dataclasses.fields(value) if not f.metadata.get("unhashed")]
        hashed = [f for f in hashed if not f.metadata.get("hashed_if_set") or getattr(value, f.name) is not None]
        return {f.name: hashed_fields(getattr(value, f.name)) for f in hashed}
    if isinstance(value, Mapping):
        return {str(k): hashed_fields(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [hashed_fields(v) for v in value]
    return value


def protocols_named(name: str) -> list[Protocol]:
    """Return the protocol of this name, which may have a recipe, of each task that has it."""
    base, plus, recipe = name.partition("+")
    tasks = [task for task in TASKS if base in protocols(task) and (not plus or recipe in recipes(task))]
    return [protocol(task, name) for task in tasks]


def protocol(task: str, name: str) -> Protocol:
    """Return a protocol of a task, which may have a recipe: `small` or `small+shuffle`.

    Raises:
      ConfigError: the task, protocol or recipe does not exist; the message lists those that do
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}{did_you_mean(task, TASKS)}; the tasks are {', '.join(TASKS)}")
    plain, plus, recipe = name.partition("+")
    if plain not in (valid := protocols(task)):
        listed = ", ".join(valid) or "none"
        raise ConfigError(
            f"unknown protocol {name!r} of {task}{did_you_mean(name, valid)}; configs/{task}.py has {listed}"
        )
    if not plus:
        return valid[plain]
    if recipe not in (found := recipes(task)):
        listed = ", ".join(f"{plain}+{other}" for other in found) or "none"
        raise ConfigError(
            f"no recipe {recipe!r} on {task}{did_you_mean(recipe, found)}; protocols with a recipe: {listed}"
        )
    return with_recipe(valid[plain], found[recipe])


def override(value: Any, path: Sequence[str], new: Any) -> Any:
    """Return a copy of a dataclass with the field at a path replaced, as in ("train", "steps")."""
    head, *rest = path
    names = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    if head not in names:
        listed = ", ".join(names) or "no fields"
        raise ConfigError(f"{type(value).__name__} has {listed}{did_you_mean(head, names)}")
    if rest:
        return dataclasses.replace(value, **{head: override(getattr(value, head), rest, new)})
    return dataclasses.replace(value, **{head: new})


def differences(wanted: Any, base: Protocol) -> dict[str, Any]:
    """Return the fields in which `wanted` differs from a protocol, by dotted path: the overrides for `resolve`."""
    overrides: dict[str, Any] = {}
    for name in OVERRIDABLE:
        new, default = getattr(wanted, name), getattr(base, name)
        if dataclasses.is_dataclass(new):
            overrides |= {f"{name}.{k}": v for k, v in vars(new).items() if v != getattr(default, k)}
        elif new != default:
            overrides[name] = new
    return overrides


def resolve(
    base: Protocol,
    *,
    mixer: str,
    mixer_label: str,
    mixer_options: Mapping[str, Any],
    mixer_sha256: str | None,
    task_version: int,
    seed: int,
    source: str | None = None,
    limit: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the configuration of a run: the protocol with the user's overrides.

    Raises:
      ConfigError: an override names an unknown field, or has a wrong type or an invalid value
    """
    changed = base
    for path, value in (overrides or {}).items():
        names = path.split(".")
        if names[0] not in OVERRIDABLE:
            raise ConfigError(f"cannot override {path!r}; max_len, variant, model.* and train.* can be")
        try:
            changed = override(changed, names, value)
        except ConfigError as error:
            raise ConfigError(f"no field {path!r} to override; {error}") from error
    config = RunConfig(
        task=base.task,
        task_version=task_version,
        variant=changed.variant,
        source=source or base.source,
        protocol=base.name,
        protocol_version=base.version,
        modified=hashed_fields(changed) != hashed_fields(base) or limit is not None,
        mixer=mixer,
        mixer_label=mixer_label,
        mixer_options=dict(mixer_options),
        mixer_sha256=mixer_sha256,
        seed=seed,
        max_len=changed.max_len,
        limit=limit,
        model=changed.model,
        train=changed.train,
        recipe=changed.recipe,
    )
    return check(config)


def check(config: RunConfig) -> RunConfig:
    """Return a validated configuration. Whole numbers in fields of type float have become floats.

    Raises:
      ConfigError: a field has a wrong type or an invalid value
    """
    try:
        config = checked(config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    model, batch_size, micro_batch = config.model, config.train.batch_size, config.train.micro_batch
    if model.qkv_dim % model.heads:
        raise ConfigError(f"model.qkv_dim ({model.qkv_dim}) must be a multiple of model.heads ({model.heads})")
    if micro_batch is not None and batch_size % micro_batch:
        raise ConfigError(f"train.micro_batch ({micro_batch}) must divide train.batch_size ({batch_size})")
    if config.train.schedule == "onecycle" and config.train.b1 < 0.1:
        raise ConfigError(f"train.b1 is {config.train.b1}; the schedule onecycle lowers it by 0.1, so 0.1 is the least")
    if config.train.schedule == "rsqrt" and not config.train.warmup:
        raise ConfigError("train.warmup is 0, but the schedule rsqrt divides by it; it must be at least 1")
    return config
