"""A learning rate for each mixer, chosen on validation from a small grid that is the same for all (`suite --tune`).

Every rate is one whole run of seed 0 under the protocol. The choice is a record of its own, `kind: tuning`, which
names all that was tried, so that the board can say how many trials a row had. Test accuracies have no part in it.
"""

from __future__ import annotations

from typing import Any

from lra.api import configure
from lra.config import RunConfig, protocol
from lra.errors import RunError
from lra.paths import runs_directory
from lra.protocols import protocol_for, tuning_grid
from lra.provenance.code import computing
from lra.provenance.environment import code_state, environment, now
from lra.record import facts
from lra.record import files as rec


def trials(task: str, mixer: str, name: str) -> dict[float, RunConfig]:
    """Return a run of seed 0 for each rate."""
    plain = configure(task, mixer, protocol=name)
    base = protocol_for(protocol(task, name), plain.mixer, plain.mixer_options)
    return {
        rate: configure(task, mixer, protocol=name, overrides={"train.learning_rate": rate})
        for rate in tuning_grid(base)
    }


def run_record(config: RunConfig, data: tuple[str, str]) -> dict[str, Any] | None:
    """Return the record of a run of this machine that ended (complete or diverged), if it did.

    Args:
      data: hash of the data and variant under which they are reported (`Prepared.name`); the code is that of today
    """
    data_sha256, variant = data
    records = runs_directory() / config.run_id(data_sha256, computing(config).sha256, variant) / "records"
    ended = [rec.read(path) for path in sorted(records.glob("*.json"))]
    return next((r for r in ended if r["status"] != "truncated"), None)


def choose(records: dict[float, dict[str, Any]]) -> float:
    """The rate of the best validation accuracy, of equals the smaller one; a run that diverged has none.

    Raises:
      RunError: all of them diverged.
    """
    reached = {rate: best for rate, record in sorted(records.items()) if (best := _best(record)) is not None}
    if not reached:
        raise RunError(f"tuning: every rate of {', '.join(map(str, records))} diverged")
    return max(reached, key=lambda rate: reached[rate])


def _best(record: dict[str, Any]) -> float | None:
    if record["status"] != "complete":
        return None
    return max(accuracy for _, _, accuracy in record["validation"])


def write_tuning(records: dict[float, dict[str, Any]]) -> float:
    """Writes what was chosen, once, beside the runs; returns the chosen rate."""
    chosen = choose(records)
    first = next(iter(records.values()))
    column = {**first["column"], "modified": False}
    name = facts.tuning_id(column, first["id"])
    directory = runs_directory() / name / "records"
    if not (directory / f"{name}.json").exists():
        rec.write(
            directory,
            {
                "schema": rec.SCHEMA,
                "kind": "tuning",
                "status": "complete",
                "id": name,
                "created": now(),
                "column": column,
                "mixer": first["mixer"],
                "seed": first["seed"],
                "learning_rate": chosen,
                "trials": [
                    {"learning_rate": rate, "run": r["id"], "status": r["status"], "validation": _best(r)}
                    for rate, r in records.items()
                ],
                "test": {},
                "environment": environment(),
                "code": {**code_state(), "computing": first["code"].get("computing")},
            },
        )
    return chosen
