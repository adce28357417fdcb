"""The record of a run: made when the run has ended, and checked before its first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from lra import config as cfg
from lra.config import RunConfig
from lra.errors import ConfigError, RecordError
from lra.provenance.code import Code
from lra.provenance.environment import code_state, environment, now
from lra.provenance.sessions import Session
from lra.record import files
from lra.record.build import build, column_of, largest_share, result_of
from lra.record.schema import RunRecord
from lra.selection import selection_rule
from lra.training.history import History
from lra.training.outcome import Outcome
from lra.training.step_functions import StepFunctions
from tasks.core import Card, Prepared


def make_record(
    run_id: str,
    config: RunConfig,
    card: Card,
    data: Prepared,
    code: Code,
    outcome: Outcome,
    *,
    mixer_version: int,
) -> RunRecord:
    """Return the record of a run that ended (complete, truncated or diverged).

    Args:
      mixer_version: `VERSION` of the mixer's file when the run began
    """
    first, *later = outcome.sessions
    history, test = outcome.history, outcome.test
    labels = data.splits["test"].labels[: config.limit]
    result: Any = {}
    name, sha256 = config.mixer, config.mixer_sha256
    if sha256 is not None:
        name = config.mixer_label.partition(f"@{sha256[:8]}")[0]
    if test is not None:
        loss = test.loss if math.isfinite(test.loss) else None
        result = result_of(test.predictions, test.labels, len(card.classes), loss=loss)
    return build(
        RunRecord,
        run_id,
        column_of(data, config.protocol, config.protocol_version, config.modified),
        {
            "name": name,
            "label": config.mixer_label,
            "options": dict(config.mixer_options),
            "sha256": sha256,
            "version": mixer_version,
        },
        environment=first.environment,
        code={**first.code, "computing": code.as_json()},
        status=outcome.status,
        seed=config.seed,
        steps={"done": outcome.steps_done, "planned": config.train.steps},
        config=cfg.hashed_fields(config),
        config_sha256=config.sha256,
        parameters=outcome.parameters,
        forward_flops=outcome.forward_flops,
        selection={
            "rule": selection_rule(card.selection, config.train),
            "step": outcome.selected_step,
            "best_step": history.best_step,
        },
        test=result,
        chance=largest_share(labels),
        majority_accuracy=float((labels == data.splits["train"].majority).mean()),
        validation=history.validation,
        curve=history.curve,
        message=outcome.message,
        seconds=history.seconds,
        steps_per_second=outcome.steps_per_second,
        peak_bytes=outcome.peak_bytes,
        receptive_field=outcome.receptive_field and dataclasses.asdict(outcome.receptive_field),
        later_sessions=[dataclasses.asdict(session) for session in later],
    )


def check_readable(make: Callable[[Outcome], RunRecord], functions: StepFunctions) -> None:
    """Check before the first step that the record of a run can be read, by one of a run that diverged at once.

    Args:
      make: returns the record of an outcome

    Raises:
      ConfigError: a setting, an option of the mixer or the environment has a value that records must not have
    """
    steps = functions.config.train.steps
    sessions = (Session(0, now(), environment(), code_state()),)
    try:
        files.as_text(make(Outcome("diverged", 0, History(steps), functions.parameters, sessions=sessions)))
    except (RecordError, ValueError) as error:
        raise ConfigError(str(error)) from error
