"""The report of `python -m benchmarks.gpu`, from its lines. It starts no JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import lines
from benchmarks.gpu.lines import PARTS
from lra.paths import write_atomically

NAME = "report.md"
NONE = "–"
FAILED = ("failed", "crashed", "differs")
Line = Mapping[str, Any]


def write(output: Path) -> None:
    """Write report.md into the directory of the results."""
    tables = {1: _mixers, 2: _numerics, 3: _bench, 4: _utilisation, 5: _training}
    sections = ["# Report of `python -m benchmarks.gpu`", _summary(output), *_failures(output), *_environment(output)]
    for part, table in tables.items():
        if lines.read(output, part):
            sections += [f"## Part {part}: {PARTS[part]}", _end(output, part)]
            sections += table(list(lines.results(output, part).values()))
    write_atomically(output / NAME, "\n\n".join(filter(None, sections)) + "\n")


def failures(output: Path) -> list[tuple[str, str, str, str]]:
    """Return part, case, status and error of everything that failed."""
    found = []
    for part, title in PARTS.items():
        for line in lines.read(output, part):
            if line["kind"] in ("result", "end") and line["status"] in FAILED:
                found.append((f"{part} {title}", line.get("case", "(the part)"), line["status"], line["error"]))
    return found


def _summary(output: Path) -> str:
    count, done = len(failures(output)), sum(len(lines.results(output, part)) for part in PARTS)
    found = lines.results(output, 0).get("environment", {}).get("environment")
    backend = found["backend"] if found else "unknown"
    note = {
        "cpu": "**JAX used the CPU: nothing in this report describes an accelerator.** `part-0.log` may say why.",
        "unknown": "**The environment is unknown: see `part-0.log`.**",
    }.get(backend, f"Backend: {backend}, {found['device']}." if found else "")
    return f"{note} {done} cases have a result, {count} failures."


def _failures(output: Path) -> list[str]:
    rows = failures(output)
    return ["## Failures", _grid(("part", "case", "status", "error"), rows) if rows else "None."]


def _environment(output: Path) -> list[str]:
    line = lines.results(output, 0).get("environment", {})
    if "environment" not in line:
        return ["## Environment", _end(output, 0)]
    facts, code = line["environment"], line["code"]
    texts = {k: ", ".join(f"{n}={x}" for n, x in v.items()) if isinstance(v, Mapping) else v for k, v in facts.items()}
    rows = [(name, str(value)) for name, value in texts.items() if value not in (None, "")]
    rows += [
        ("compute capability", line["compute_capability"] or NONE),
        ("memory for programs, GiB", _gib(line["memory_bytes"])),
        ("code", f"{code['sha256'][:8]}, commit {code['git_commit']}, clean {code['git_clean']}"),
    ]
    return ["## Environment", _grid(("", ""), rows)]


def _end(output: Path, part: int) -> str:
    """Return a sentence on how a part ended and what it left out."""
    end = next((line for line in lines.read(output, part) if line["kind"] == "end"), None)
    if end is None:
        return "This part has not ended: its process was killed, or still runs."
    left = f" Left out: {', '.join(end['left_out'])}." if end["left_out"] else ""
    status = {"complete": "Complete", "time limit": "Ended by its time limit", "stopped": "Stopped by a signal"}
    how = status.get(end["status"], "Failed")
    return f"{how} after {end['seconds']:.0f} s of {end['limit']:.0f} s.{left}"


def _mixers(results: Sequence[Line]) -> list[str]:
    columns = ("case", "status", "seconds", "first step, s", "first loss", "last loss")
    return [
        _table(results, columns, "case", "status", "seconds", "first_step_seconds", "first_loss", "last_loss"),
        "The first step includes compilation.",
    ]


def _numerics(results: Sequence[Line]) -> list[str]:
    def largest(name: str) -> Callable[[Line], str]:
        return lambda line: _number(
            max(filter(None, line.get(name, {}).values()), default=0.0) if name in line else None
        )

    columns = ("case", "status", "seconds", "highest, float32", "highest, float64", "default, float32", "verdict")
    values = (largest("highest_float32"), largest("highest_float64"), largest("default_float32"), "verdict")
    return [
        _table(results, columns, "case", "status", "seconds", *values),
        "Largest difference of outputs and gradients from the CPU, relative to the largest value of the array, at "
        "matmul precision `highest` and at the default precision. Float64 is compared where float32 differs by more "
        "than 1e-5, because rounding and ties (of mixers that sort or hash) disappear in float64, and errors do not.",
    ]


def _bench(results: Sequence[Line]) -> list[str]:
    roof = next((line for line in results if "bytes_per_second" in line), None)
    cells = [line for line in results if line is not roof]
    columns = (
        "case", "status", "steps/s", "inference steps/s", "micro-batch", "compiler, GiB", "peak, GiB", "GFLOP/s",
        "share of roofline", "compilation, s",
    )  # fmt: skip

    def inference(line: Line) -> str:
        return _number(1 / line["inference"]["seconds"][1] if line.get("inference") else None)

    def giga(line: Line) -> str:
        return _number(line["flops_per_second"] / 1e9 if line.get("flops_per_second") else None)

    def share(line: Line) -> str:
        return f"{line['roofline_share']:.1%}" if line.get("roofline_share") else NONE

    values = (
        "case", "status", "steps_per_second", inference, "micro_batch", lambda line: _gib(line.get("needed_bytes")),
        lambda line: _gib(line.get("peak_bytes")), giga, share, "compile_seconds",
    )  # fmt: skip
    roofline = (
        f"Roofline: {roof['flops_per_second'] / 1e9:,.0f} GFLOP/s in a float32 matrix product at precision `highest`, "
        f"{roof['bytes_per_second'] / 1e9:,.0f} GB/s of memory."
        if roof
        else "The roofline was not measured."
    )
    return [roofline, _table(cells, columns, *values)]


def _utilisation(results: Sequence[Line]) -> list[str]:
    def gap(line: Line) -> str:
        return f"{1e3 * line['host_gap_seconds']:.2f}" if line.get("host_gap_seconds") is not None else NONE

    columns = (
        "case",
        "status",
        "micro-batch",
        "trainer, steps/s",
        "compiled, steps/s",
        "host gap, ms/step",
        "peak, GiB",
    )
    values = ("micro_batch", "trainer_steps_per_second", "compiled_steps_per_second", gap)
    return [
        _table(results, columns, "case", "status", *values, lambda line: _gib(line.get("peak_bytes"))),
        "The gap is the time of a step of the trainer less that of its compiled functions on prepared inputs. On an "
        "accelerator the peak is the largest of the process so far.",
    ]


def _training(results: Sequence[Line]) -> list[str]:
    def accuracy(line: Line) -> str:
        return f"{line['test_accuracy']:.2%}" if line.get("test_accuracy") is not None else NONE

    columns = ("task", "status", "source", "run", "steps", "of", "steps/s", "test accuracy", "data, s")
    values = (
        "source",
        "run_status",
        "steps_done",
        "steps_planned",
        "steps_per_second",
        accuracy,
        "preparation_seconds",
    )
    missing = [f"- {line['case']}: no data. {line['error']}" for line in results if line["status"] == "no data"]
    return [_table(results, columns, "case", "status", *values), "\n".join(missing)]


def _table(results: Sequence[Line], columns: Sequence[str], *values: str | Callable[[Line], str]) -> str:
    def cell(line: Line, value: str | Callable[[Line], str]) -> str:
        return _number(line.get(value)) if isinstance(value, str) else value(line)

    return _grid(columns, [tuple(cell(line, value) for value in values) for line in results])


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [columns, [":--"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(' '.join(str(c).replace('|', '/').split()) for c in row)} |" for row in table)


def _number(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _gib(count: int | None) -> str:
    return NONE if count is None else f"{count / 2**30:.2f}"
