"""The choice of a learning rate for each mixer, on validation, from a small grid that is the same for all mixers.

Every rate is one complete run of seed 0 under the protocol (`suite --tune`). The choice is a record of its own (kind
"tuning") that names all trials, so that the leaderboard shows how many a row had. Test accuracies are not used.
"""

from __future__ import annotations

from lra.api import configure
from lra.config import RunConfig, protocol
from lra.errors import RunError
from lra.paths import runs_directory
from lra.protocols import protocol_for, tuning_grid
from lra.provenance.code import computing
from lra.provenance.environment import code_state
from lra.record import files
from lra.record.build import build
from lra.record.facts import tuning_id
from lra.record.schema import RunRecord, TuningRecord


def trials(task: str, mixer: str, name: str) -> dict[float, RunConfig]:
    """Return a run of seed 0 for each rate."""
    plain = configure(task, mixer, protocol=name)
    base = protocol_for(protocol(task, name), plain.mixer, plain.mixer_options)
    return {
        rate: configure(task, mixer, protocol=name, overrides={"train.learning_rate": rate})
        for rate in tuning_grid(base)
    }


def run_record(config: RunConfig, data: tuple[str, str]) -> RunRecord | None:
    """Return the record of a run of this machine that ended (complete or diverged), if it did.

    Args:
      data: hash of the data and variant under which they are reported (`Prepared.name`); the code is the current one
    """
    data_sha256, variant = data
    records = runs_directory() / config.run_id(data_sha256, computing(config).sha256, variant) / "records"
    ended = [files.load(path)[0] for path in sorted(records.glob("[!.]*.json"))]  # a damaged one is none
    return next((r for r in ended if isinstance(r, RunRecord) and r.status != "truncated"), None)


def choose(records: dict[float, RunRecord]) -> float:
    """Return the rate with the best validation accuracy, of equals the smaller one; a run that diverged has none.

    Raises:
      RunError: all of them diverged.
    """
    reached = {rate: best for rate, record in sorted(records.items()) if (best := record.best_accuracy) is not None}
    if not reached:
        raise RunError(f"tuning: every rate of {', '.join(map(str, records))} diverged")
    return max(reached, key=lambda rate: reached[rate])


def write_tuning(records: dict[float, RunRecord]) -> float:
    """Write the record of the choice, unless there is one; return the chosen rate."""
    chosen = choose(records)
    first = next(iter(records.values()))
    column = first.column.model_copy(update={"modified": False})
    name = tuning_id(column, first.id)
    directory = runs_directory() / name / "records"
    if not (directory / f"{name}.json").exists():
        tuning = build(
            TuningRecord,
            name,
            column,
            first.mixer,
            code={**code_state(), "computing": first.code.computing},
            seed=first.seed,
            learning_rate=chosen,
            trials=[
                {"learning_rate": rate, "run": r.id, "status": r.status, "validation": r.best_accuracy}
                for rate, r in records.items()
            ],
            test={},
        )
        files.write(directory, tuning)
    return chosen
