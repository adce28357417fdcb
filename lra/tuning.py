"""A learning rate for each mixer, chosen on validation from a small grid that is the same for all (`suite --tune`).

Every rate is one whole run of seed 0 under the protocol. The choice is a record of its own, `kind: tuning`, which
names all that was tried, so that the board can say how many trials a row had. Test accuracies have no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lra import record as rec
from lra.api import configure
from lra.code import computing
from lra.config import RunConfig, protocol
from lra.environment import code_state, environment
from lra.interrupt import RunError
from lra.run_id import id_hashes

FACTORS = (0.3, 1.0, 3.0)  # of the protocol's learning rate


def grid(task: str, name: str) -> list[float]:
    """The learning rates to try, the protocol's own among them."""
    return [float(f"{factor * protocol(task, name).train.learning_rate:.3g}") for factor in FACTORS]


def trials(task: str, mixer: str, name: str) -> dict[float, RunConfig]:
    """One run of seed 0 for each rate."""
    return {
        rate: configure(task, mixer, protocol=name, overrides={"train.learning_rate": rate})
        for rate in grid(task, name)
    }


def run_record(config: RunConfig, data_sha256: str) -> dict[str, Any] | None:
    """Return the record of a run of this machine and the code here that ended (complete or diverged), if it did."""
    records = rec.runs_directory() / config.run_id(data_sha256, computing(config).sha256) / "records"
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


def tuning_id(column: Mapping[str, Any], first_run: str) -> str:
    """Return the id of a choice: with the hashes that its first trial has."""
    return "-".join([column["task"], column["variant"], column["protocol"], "tuning", *id_hashes(first_run)])


def write_tuning(records: dict[float, dict[str, Any]]) -> float:
    """Writes what was chosen, once, beside the runs; returns the chosen rate."""
    chosen = choose(records)
    first = next(iter(records.values()))
    column = {**first["column"], "modified": False}
    name = tuning_id(column, first["id"])
    directory = rec.runs_directory() / name / "records"
    if not (directory / f"{name}.json").exists():
        rec.write(
            directory,
            {
                "schema": rec.SCHEMA,
                "kind": "tuning",
                "status": "complete",
                "id": name,
                "created": rec.now(),
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
