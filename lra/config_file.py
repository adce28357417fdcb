"""A run's configuration as a file, `config.json` in its directory. Imports neither jax nor flax."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lra.config import Model, RunConfig, Train, check
from lra.errors import ConfigError


def from_json(fields: Mapping[str, Any]) -> RunConfig:
    """The inverse of `dataclasses.asdict` through JSON.

    Raises:
      ConfigError: a field is missing, unknown or of another type, as in a run of another version of the suite.
    """
    try:
        model = Model(**{**fields["model"], "head": tuple(fields["model"]["head"])})
        config = RunConfig(**{**fields, "model": model, "train": Train(**fields["train"])})
    except (KeyError, TypeError) as error:
        raise ConfigError(f"not the configuration of a run of this version ({error})") from error
    check(config)
    return config


def read(path: Path) -> RunConfig:
    """The configuration in a run's `config.json`.

    Raises:
      ConfigError: there is none, or it is not of this version; the message names the file.
    """
    try:
        return from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def as_json(config: RunConfig) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def as_text(config: RunConfig) -> str:
    """What `config.json` holds."""
    return json.dumps(as_json(config), indent=1) + "\n"
