"""The suite from Python: one run and its record."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lra import config as cfg
from lra import config_file
from lra.config import Protocol, RunConfig
from lra.data.prepare import check_length, cut_note, prepare
from lra.errors import ConfigError, Interrupted, RunError
from lra.paths import runs_directory, write_atomically
from lra.provenance.code import Code, computing
from lra.provenance.environment import code_state, now, versions
from lra.record import earlier
from lra.record import files as rec
from lra.runtime.devices import use_compilation_cache, use_every_core
from lra.runtime.distributed import is_writer
from lra.runtime.numerics import pin
from lra.runtime.progress import data_progress
from lra.selection import selection_rule
from lra.training.multi_seed import Together
from lra.training.step_functions import Program
from lra.training.trainer import Outcome, train_program
from lra.typed import with_floats
from models import mixers
from tasks import load_task
from tasks.core import Card, Prepared


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
    check_length(card, config.variant, config.max_len)
    return config


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
      ConfigError: there is no such mixer or option; the message lists what there is.
    """
    pin()  # before the mixer's module is imported, which may make arrays
    try:
        found = mixers.resolve(mixer)
        if not isinstance(options, Mapping):
            options = mixers.parse_options(found.cls, options)
        mixers.check_options(found.cls, options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
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
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, select, test once, and return the record.

    A complete run is not repeated, and an unfinished one is resumed, if settings, data and code are the same.

    Args:
      task: listops, text, retrieval, image or pathfinder
      mixer: a name of `models.mixers.available()`, `package.module:Class` or `my_file.py:Class`
      protocol: quick, laptop, small or lra
      seed: of parameters, batches and dropout; never of the data
      options: of the mixer, {"window": 64} or ["window=64"]; None: those with which the protocol's source ran
        the mixer (docs/protocols.md), else the mixer's defaults
      source: of the data; None: the first that is at hand
      limit: evaluate on only so many examples (marks the protocol as modified)
      max_minutes: stop before, and record what was reached as truncated
      overrides: {"train.steps": 500, "model.layers": 4, "max_len": 1000}

    Raises:
      ConfigError, DataError: something named does not exist; the message lists what does.
      RunError: the run stopped without a result: by a signal, or because it diverged.
    """
    config = configure(
        task, mixer, protocol=protocol, seed=seed, options=options, source=source, limit=limit, overrides=overrides
    )
    return run_config(config, max_minutes=max_minutes)


def run_config(config: RunConfig, *, max_minutes: float | None = None) -> dict[str, Any]:
    """`run` for a configuration made by `configure`."""
    return run_seeds(config, [config.seed], max_minutes=max_minutes)[0]


def run_seeds(config: RunConfig, seeds: Sequence[int], *, max_minutes: float | None = None) -> list[dict[str, Any]]:
    """`run_config` for several seeds, in one program (`lra.training.multi_seed`); each has a record of its own.

    Raises:
      ConfigError, DataError, RunError: as `run`; one seed that diverged does not keep the others from their records
    """
    if not seeds:
        raise ConfigError("no seed to train: how many are trained together must be at least 1")
    code_state(), versions()  # asked now: files may change while the data are prepared
    code = computing(config)
    card = load_task(config.task).CARD
    data = prepare(config.task, config.variant, config.source, allow_sample=config.allow_sample, progress=data_progress)
    configs = {seed: dataclasses.replace(config, seed=seed) for seed in seeds}
    places = {
        seed: runs_directory() / c.run_id(data.sha256, code.sha256, data.column_variant) for seed, c in configs.items()
    }
    records = {seed: record for seed, place in places.items() if (record := _complete(place)) is not None}
    if missing := [seed for seed in seeds if seed not in records]:
        if is_writer() and (note := cut_note(data, config.max_len)):
            print(note, file=sys.stderr)
        use_compilation_cache()
        use_every_core()
        version = mixers.resolve(config.mixer).version
        for seed in missing if is_writer() else ():
            _begin(places[seed], configs[seed], code)
        outcomes = _train(configs, places, missing, card, data, max_minutes)
        for seed, outcome in outcomes.items():
            records[seed] = make_record(
                places[seed].name,
                configs[seed],
                card,
                data,
                code,
                outcome,
                mixer_version=version,
                together=len(missing),
            )
            with contextlib.suppress(FileExistsError):  # one that diverged does so again, at the same step
                if is_writer():
                    rec.write(places[seed] / "records", records[seed])
        if told := [f"{places[s].name}: {o.message}" for s, o in outcomes.items() if o.status == "diverged"]:
            raise RunError("\n".join(told))
    return [records[seed] for seed in seeds]


def _complete(place: Path) -> dict[str, Any] | None:
    """Return the record of a run that is complete, after a line that says so.

    Raises:
      RunError: it is the record of another run, as in a directory that was renamed.
    """
    path = rec.whole_record(place)
    if not path.exists():
        return None
    record = rec.read(path)
    if record["id"] != place.name:
        raise RunError(f"{path} is the record of another run, {record['id']}")
    print(f"{place.name}: complete since {record['created']}, and not trained again", file=sys.stderr, flush=True)
    return record


def _begin(place: Path, config: RunConfig, code: Code) -> None:
    """Write what a run is into its directory; at its beginning, say which earlier run it does not continue."""
    if not (place / earlier.FILE).exists() and (message := earlier.note(config, place.name, code)):
        print(message, file=sys.stderr, flush=True)
    write_atomically(place / "config.json", config_file.as_text(config))
    earlier.write_code(place, code)


def _train(
    configs: Mapping[int, RunConfig],
    places: Mapping[int, Path],
    seeds: Sequence[int],
    card: Card,
    data: Prepared,
    max_minutes: float | None,
) -> dict[int, Outcome]:
    """Trains seeds, together if there are several: the state of all then lies beside the directories of each."""
    first, directories = seeds[0], [places[seed] for seed in seeds]
    if len(seeds) == 1:
        program, directory = Program(configs[first], card), places[first]
    else:
        if alone := [place.name for place in directories if (place / "checkpoints" / "latest").exists()]:
            raise RunError(f"begun alone: {', '.join(alone)}; let `train --seed` end it, or delete its directory")
        program = Together(configs[first], card, seeds)
        numbers = "_".join(map(str, seeds))
        directory = places[first].with_name(places[first].name.replace(f"-s{first}-", f"-s{numbers}-"))
    outcomes = train_program(program, card, data, directory, directories, max_minutes=max_minutes)
    for outcome in outcomes:
        if outcome.status == "interrupted":
            raise Interrupted(f"{directory.name}: {outcome.message}; the same command goes on from there")
    return dict(zip(seeds, outcomes, strict=True))


def make_record(
    run_id: str,
    config: RunConfig,
    card: Card,
    data: Prepared,
    code: Code,
    outcome: Outcome,
    *,
    mixer_version: int,
    together: int = 1,
) -> dict[str, Any]:
    """Return the record of a run that ended (complete, truncated or diverged).

    Args:
      mixer_version: `VERSION` of the mixer's file when the run began
      together: seeds in one program; seconds, steps per second and memory are of all of them
    """
    first, *later = outcome.sessions
    journal, test = outcome.journal, outcome.test
    labels = data.splits["test"].labels[: config.limit]
    chance = rec.largest_share(labels)
    result: dict[str, Any] = {}
    if test is not None:
        result = {
            **rec.scores(test.predictions, test.labels, len(card.classes)),
            "loss": test.loss if math.isfinite(test.loss) else None,
        }
        result["at_chance"] = rec.at_chance(result["correct"], result["count"], chance)
    return {
        "schema": rec.SCHEMA,
        "kind": "run",
        "status": outcome.status,
        "id": run_id,
        "created": now(),
        "column": {
            "task": config.task,
            "variant": data.column_variant,
            "task_version": config.task_version,
            "source": data.source,
            "data_sha256": data.sha256,
            "protocol": config.protocol,
            "protocol_version": config.protocol_version,
            "modified": config.modified,
        },
        "mixer": {
            "name": config.mixer if config.mixer_sha256 is None else config.mixer_label.partition("@")[0],
            "label": config.mixer_label,
            "options": dict(config.mixer_options),
            "sha256": config.mixer_sha256,
            "version": mixer_version,
        },
        "seed": config.seed,
        "steps": {"done": outcome.steps_done, "planned": config.train.steps},
        "config": cfg.meaning(config),
        "config_sha256": config.sha256,
        "parameters": outcome.parameters,
        "forward_flops": outcome.forward_flops,
        "selection": {
            "rule": selection_rule(card.selection, config.train),
            "step": outcome.selected_step,
            "best_step": journal.best_step,
        },
        "test": result,
        "chance": chance,
        "majority_accuracy": float((labels == data.splits["train"].majority).mean()),
        "validation": journal.validation,
        "curve": journal.curve,
        "message": outcome.message,
        "seeds_together": together,
        "seconds": journal.seconds,
        "steps_per_second": outcome.steps_per_second,
        "peak_bytes": outcome.peak_bytes,
        "environment": first.environment,
        "code": {**first.code, "computing": code.as_json()},
        "later_sessions": [dataclasses.asdict(session) for session in later],
    }


def records() -> list[dict[str, Any]]:
    """All records of this machine and the committed ones; `origin` says which."""
    return [{**f.record, "origin": f.origin} for f in rec.find()]


def summary(record: dict[str, Any]) -> str:
    """One line about a record."""
    column, test, steps = record["column"], record["test"], record["steps"]
    modified = " (modified)" if column["modified"] else ""
    line = (
        f"{column['task']} {column['variant']} ({column['source']}), {column['protocol']}{modified}, "
        f"{record['mixer']['label']}, seed {record['seed']}: "
        f"test accuracy {test['accuracy']:.2%} ({test['correct']} of {test['count']}), {record['status']} after "
        f"{steps['done']:,} of {steps['planned']:,} steps, {record['seconds'] / 60:.1f} min"
    )
    if rec.is_at_chance(test):
        line += f"\nThis is chance: the largest class has {rec.chance(test):.2%} of the test labels."
    if rec.predicts_one_class(test):
        line += "\nThe model predicts the same class for every test example."
    return line
