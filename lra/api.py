"""The suite from Python: one run and its record."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lra import config as cfg
from lra.config import Protocol, RunConfig
from lra.data.prepare import check_length, cut_note, prepare
from lra.errors import ConfigError, Interrupted, RunError, describe
from lra.paths import runs_directory, write_atomically
from lra.provenance.code import Code, computing
from lra.provenance.environment import code_state, versions
from lra.record import earlier, files
from lra.record.files import RecordFile
from lra.record.schema import Record, RunRecord
from lra.run_record import check_readable, make_record
from lra.runtime.devices import use_compilation_cache, use_every_core
from lra.runtime.distributed import is_writer
from lra.runtime.numerics import pin
from lra.runtime.progress import data_progress
from lra.training.memory import check_memory, train_in_memory
from lra.training.step_functions import StepFunctions, encoder_config
from lra.typed_json import with_floats
from models import mixers
from models.core import Dims
from models.mixer_checks import UnsuitableMixerError, verify
from tasks import load_task


def configure(
    task: str,
    mixer: str,
    *,
    protocol: str,
    seed: int = 0,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    source: str | None = None,
    limit: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the configuration of a run (see `run`); check task, protocol, mixer and options, and train nothing."""
    base, found, given = protocol_and_mixer(task, mixer, protocol, options)
    card = load_task(task).CARD
    config = cfg.resolve(
        base,
        mixer=found.spec,
        mixer_label=mixers.label(found, given),
        mixer_options=given,
        mixer_sha256=found.sha256,
        task_version=card.version,
        seed=seed,
        source=source,
        limit=limit,
        overrides=overrides,
    )
    check_length(card, config.variant, config.max_len, config.recipe)
    if card.pairs != (config.model.pair is not None):
        wanted = "concat or nli, because an example has two documents" if card.pairs else "none: it has one document"
        raise ConfigError(f"model.pair is {config.model.pair}; on {task} it must be {wanted}")
    check_mixer(found, given, encoder_config(config, card).dims)
    return config


def check_mixer(mixer: mixers.Resolved, options: Mapping[str, Any], dims: Dims) -> None:
    """Construct and call a mixer abstractly.

    Raises:
      ConfigError: an option is invalid, or the mixer cannot be constructed, called or trained
    """
    try:
        verify(mixer.cls, dims, options)
    except UnsuitableMixerError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        raise ConfigError(f"mixer {mixer.name}: {describe(error)}") from error


def protocol_and_mixer(
    task: str, mixer: str, protocol: str, options: Mapping[str, Any] | Sequence[str] | None = None
) -> tuple[Protocol, mixers.Resolved, dict[str, Any]]:
    """Return the protocol as it holds for a mixer, the mixer, and those of its options that are not the default.

    Args:
      options: of the mixer; None: those with which the protocol's source ran it, else the mixer's defaults

    Raises:
      ConfigError: the task, protocol, mixer or option does not exist; the message lists those that do.
    """
    base = cfg.protocol(task, protocol)
    found, given = find_mixer(mixer, options or ())
    valid = mixers.options(found.cls)
    given = {name: value for name, value in given.items() if value != valid[name].default}  # one experiment, one id
    if options is None and (form := base.forms.get(found.name)):
        given = dict(form.options)
    return cfg.protocol_for(base, found.name, given), found, given


def find_mixer(mixer: str, options: Mapping[str, Any] | Sequence[str] = ()) -> tuple[mixers.Resolved, dict[str, Any]]:
    """Return a mixer by name, and its options with their types.

    Raises:
      ConfigError: there is no such mixer or option, and the message lists the valid ones; or the mixer's file cannot
        be imported
    """
    pin()  # before the mixer's module is imported, which may make arrays
    try:
        found = mixers.resolve(mixer)
        if not isinstance(options, Mapping):
            options = mixers.parse_options(found.cls, options)
        mixers.check_options(found.cls, options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # of the user's file, while it is imported
        raise ConfigError(f"mixer {mixer!r}: {describe(error)}") from error
    valid = mixers.options(found.cls)
    return found, {name: with_floats(value, valid[name].annotation) for name, value in options.items()}


def run(
    task: str,
    mixer: str,
    *,
    protocol: str,
    seed: int = 0,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    source: str | None = None,
    limit: int | None = None,
    max_minutes: float | None = None,
    tensorboard: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Train, select, test once, and return the record.

    A complete run is not repeated, and an unfinished one is resumed, if settings, data and code are the same.

    Args:
      task: a name of `tasks.available()`
      mixer: a name of `models.mixers.available()`, `package.module:Class` or `my_file.py:Class`
      protocol: a name in `configs/<task>.py`: quick, laptop, small or lra; with a recipe as in small+shuffle
      seed: of parameters, batches and dropout; never of the data
      options: of the mixer, {"window": 64} or ["window=64"]; None: those with which the protocol's source ran
        the mixer (docs/protocols.md), else the mixer's defaults
      source: of the data; None: the first that is available
      limit: evaluate on only so many examples (marks the protocol as modified)
      max_minutes: stop before, and record what was reached as truncated
      tensorboard: write event files for TensorBoard into the run's directory
      overrides: {"train.steps": 500, "model.layers": 4, "max_len": 1000}

    Raises:
      ConfigError, DataError: something named does not exist; the message lists what does.
      RunError: the run stopped without a result: by a signal, or because it diverged.
    """
    config = configure(
        task, mixer, protocol=protocol, seed=seed, options=options, source=source, limit=limit, overrides=overrides
    )
    return run_config(config, max_minutes=max_minutes, tensorboard=tensorboard)


def run_config(config: RunConfig, *, max_minutes: float | None = None, tensorboard: bool = False) -> RunRecord:
    """Do the same as `run` for a configuration made by `configure`."""
    check_minutes(max_minutes)
    code_state(), versions()  # recorded now, because files may change while the data are prepared
    code = computing(config)
    card = load_task(config.task).CARD
    use_compilation_cache()
    use_every_core()
    functions = StepFunctions(config, card)  # before the data are prepared: it refuses what cannot be trained
    check_memory(functions)
    data = prepare(config.task, config.variant, config.source, progress=data_progress)
    directory = runs_directory() / config.run_id(data.sha256, code.sha256, data.column_variant)
    if (record := _complete(directory)) is not None:
        return record
    if is_writer() and (note := cut_note(data, config.max_len)):
        print(note, file=sys.stderr)
    version = mixers.resolve(config.mixer).version
    make = partial(make_record, directory.name, config, card, data, code, mixer_version=version)
    check_readable(make, functions)
    if is_writer():
        _begin(directory, config, code)
    outcome = train_in_memory(functions, data, directory, max_minutes=max_minutes, tensorboard=tensorboard)
    if outcome.status == "interrupted":
        raise Interrupted(f"{directory.name}: {outcome.message}; the same command resumes it")
    record = make(outcome)
    with contextlib.suppress(FileExistsError):  # a run that diverged does so again, at the same step
        if is_writer():
            files.write(directory / "records", record)
    if outcome.status == "diverged":
        raise RunError(f"{directory.name}: {outcome.message}")
    return record


def check_minutes(max_minutes: float | None) -> None:
    """Raise ConfigError for a time limit that is not above zero."""
    if max_minutes is not None and not max_minutes > 0:
        raise ConfigError(f"--max-minutes {max_minutes:g}: must be more than 0")


def _complete(directory: Path) -> RunRecord | None:
    """Return the record of a run that is complete, after a line that says so.

    Raises:
      RunError: it is the record of another run, as in a directory that was renamed
    """
    path = files.complete_record_path(directory)
    if not path.exists():
        return None
    record = files.read(path)
    if record.id != directory.name or not isinstance(record, RunRecord):
        raise RunError(f"{path} is the record of another run, {record.id}; give the directory its name back")
    print(f"{directory.name}: complete since {record.created}, not trained again", file=sys.stderr, flush=True)
    return record


def _begin(directory: Path, config: RunConfig, code: Code) -> None:
    """Write a run's configuration into its directory; for a new run, print which earlier run it does not resume."""
    if not (directory / earlier.FILE).exists() and (message := earlier.note(config, directory.name, code)):
        print(message, file=sys.stderr, flush=True)
    write_atomically(directory / "config.json", config.as_text())
    earlier.write_code(directory, code)


def records() -> list[RecordFile[Record]]:
    """Return all records of this machine and the committed ones, each with its `origin` and path."""
    return files.find()


def summary(record: RunRecord) -> str:
    """Return one line about a record, and notes on a test at chance."""
    column, test, steps = record.column, record.test, record.steps
    modified = " (modified)" if column.modified else ""
    accuracy = f"test accuracy {test.accuracy:.2%} ({test.correct} of {test.count}), " if test else ""
    line = (
        f"{column.task} {column.variant} ({column.source}), {column.protocol}{modified}, {record.mixer.label}, "
        f"seed {record.seed}: {accuracy}{record.status} after {steps.done:,} of {steps.planned:,} steps, "
        f"{record.seconds / 60:.1f} min"
    )
    if test and test.is_at_chance:
        line += f"\nThis is chance: the largest class has {test.chance:.2%} of the test labels."
    if test and test.predicts_one_class:
        line += "\nThe model predicts the same class for every test example."
    return line
