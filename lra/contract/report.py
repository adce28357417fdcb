"""Check mixers against their contract (`run_lra.py check`): a table of findings and a verdict for each.

The checks of `lra.contract.checks` run at a length of 150, then at 1,100, which is many windows or blocks of the usual
sizes. Slower checks follow: loading in a new process, scaling with the length, number of parameters.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lra.api import configure, find_mixer
from lra.config import protocols_named
from lra.contract import checks as contract
from lra.contract import scaling
from lra.contract.harness import DIMS, TOLERANCES, ContractViolation, MixerUnderTest, Probe, unoptimised
from lra.errors import ConfigError, describe
from lra.plain_table import plain_table
from lra.training.checkpoints import Checkpoints
from lra.training.step_functions import StepFunctions, TrainState
from models import mixers
from tasks import load_task
from tasks.processes import process_pool

LONG: dict[str, Any] = {"lengths": (700, 90, 1), "length": 800}
LONG_CHECKS = ("content of padding", "amount of padding", "batch independence", "all-padding example")
SLACK = 0.15  # by which an exponent of operations or memory may exceed the claim
TIME_SLACK = 0.5  # the same of measured time, which depends on caches and on load; more is a flag, not a failure

Status = Literal["pass", "flag", "FAIL"]
STYLES: dict[Status, str] = {"pass": "green", "flag": "yellow", "FAIL": "bold red"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of a check."""

    check: str
    status: Status
    detail: str


class Flag(Exception):
    """The contract is satisfied, but a reader of the leaderboard should know the message."""


def check(mixer: mixers.Resolved, options: Mapping[str, Any], *, quick: bool = False) -> Iterator[Finding]:
    """Yield the findings. If the first check fails, no others run."""
    for number, (name, run) in enumerate(checks(mixer, options, quick)):
        finding = examine(name, run)
        yield finding
        if number == 0 and finding.status == "FAIL":
            return


def checks(mixer: mixers.Resolved, options: Mapping[str, Any], quick: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the checks of a mixer by name."""
    subject = MixerUnderTest(mixer, options)
    for name, function in contract.QUICK.items():
        yield name, unoptimised()(partial(function, subject))
    if quick:
        return
    long = MixerUnderTest(mixer, options, dataclasses.replace(DIMS, max_len=1100), **LONG)
    for name in LONG_CHECKS:
        yield f"{name}, long", unoptimised()(partial(contract.QUICK[name], long))
    yield "encoder", unoptimised()(partial(contract.encoder, subject))
    yield "save and load", partial(save_and_load, subject)
    yield "scaling", partial(scaling_with_length, subject)
    yield "parameters", partial(parameters, subject)


def examine(name: str, run: Callable[[], str]) -> Finding:
    """Run a check. An exception of the mixer is a failure, with its message and place in the mixer's code."""
    try:
        return Finding(name, "pass", run())
    except Flag as flag:
        return Finding(name, "flag", str(flag))
    except ContractViolation as violation:
        return Finding(name, "FAIL", str(violation))
    except Exception as error:
        return Finding(name, "FAIL", describe(error))


def save_and_load(subject: MixerUnderTest) -> str:
    """Check that a checkpoint, loaded in a new process into a mixer of another seed, gives the same outputs."""
    probe = Probe(subject, "float32")
    expected = np.asarray(probe.outputs(*probe.inputs()))
    with tempfile.TemporaryDirectory() as directory:
        Checkpoints(Path(directory)).save("latest", TrainState(1, probe.params, probe.buffers, ()), {})
        with process_pool(1) as pool:
            actual = pool.submit(_outputs_of_saved, subject.mixer.spec, dict(subject.options), directory).result()
    difference = float(np.abs(actual - expected).max() / np.abs(expected).max())
    if difference > TOLERANCES["float32"]:
        raise ContractViolation(
            f"outputs differ by {difference:.1e} after loading: an array made at construction is neither nnx.Param nor "
            "Buffer"
        )
    return "equal after loading in a new process"


def _outputs_of_saved(spec: str, options: Mapping[str, Any], directory: str) -> np.ndarray:
    probe = Probe(MixerUnderTest(mixers.resolve(spec), options), "float32", seed=1)
    loaded = Checkpoints(Path(directory)).load("latest", TrainState(1, probe.params, probe.buffers, ()))
    if loaded is None:
        raise ContractViolation("the checkpoint was not saved")
    probe.params, probe.buffers = loaded[0].params, loaded[0].buffers
    return np.asarray(probe.outputs(*probe.inputs()))


def scaling_with_length(subject: MixerUnderTest, lengths: Sequence[int] = scaling.LENGTHS) -> str:
    """Compare operations and memory, between the two longest lengths, and time, between the ends, with the claim."""
    dims = dataclasses.replace(subject.dims, d_model=32, qkv_dim=32, mlp_dim=64)
    points = scaling.measure(subject.mixer.cls, subject.options, dims, lengths)
    shortest, middle, longest = points[0], points[-2], points[-1]
    measured = {
        "time": scaling.exponent(middle, longest, "flops"),
        "memory": scaling.exponent(middle, longest, "bytes"),
    }
    seconds = scaling.exponent(shortest, longest, "seconds")
    text = (
        f"operations L^{measured['time']:.2f}, memory L^{measured['memory']:.2f}, measured time L^{seconds:.2f} "
        f"({1e3 * longest.seconds:.0f} ms, {longest.bytes / 2**20:.0f} MiB at {longest.length:,})"
    )
    if subject.mixer.complexity is None:
        raise Flag(f'{text}; its file claims nothing: COMPLEXITY = ("L", "L") would claim linear time and memory')
    claims = dict(zip(("time", "memory"), subject.mixer.complexity, strict=True))
    allowed = {name: scaling.claimed_exponent(claim, middle, longest) for name, claim in claims.items()}
    if exceeded := [f"{name} O({claims[name]})" for name in claims if measured[name] > allowed[name] + SLACK]:
        raise ContractViolation(f"claims {' and '.join(exceeded)}, has {text}")
    if seconds > allowed["time"] + TIME_SLACK:
        raise Flag(f"{text}: slower than the claimed O({claims['time']}), unless the machine was busy")
    return text


def parameter_ratios(mixer: mixers.Resolved, options: Mapping[str, Any]) -> dict[str, float]:
    """Return by task the number of parameters of the whole model under `small`, relative to softmax's."""

    def count(task: str, spec: str, given: Mapping[str, Any] | None = None) -> int:
        return StepFunctions(configure(task, spec, protocol="small", options=given), load_task(task).CARD).parameters

    tasks = [protocol.task for protocol in protocols_named("small")]
    return {task: count(task, mixer.spec, options) / count(task, "softmax") for task in tasks}


def parameters(subject: MixerUnderTest) -> str:
    """Compare the size of the whole model under `small` with softmax's; Tay et al. (2020, section 3.2) allow 10 %."""
    ratios = parameter_ratios(subject.mixer, subject.options)
    text = ", ".join(f"{task} {ratio:.2f}" for task, ratio in ratios.items()) + " of softmax's under `small`"
    if outside := [task for task, ratio in ratios.items() if abs(ratio - 1) > 0.1]:
        raise Flag(f"{text}: differs by more than 10 % in {', '.join(outside)}")
    return text


def check_all(names: Sequence[str], options: Sequence[str] = (), *, quick: bool = False) -> bool:
    """Print table and verdict of each mixer, of all of the project if none is named; return whether all pass.

    Raises:
      ConfigError: a mixer or option is unknown, or a mixer refuses an option; nothing was run.
    """
    console = Console()
    verdicts: dict[str, bool] = {}
    found = [find_mixer(name, options) for name in names or mixers.available()]
    for mixer, parsed_options in found:
        try:
            MixerUnderTest(mixer, parsed_options).graph()
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except Exception:  # which the first check reports
            continue
    for mixer, parsed_options in found:
        table, verdict, passes = report(mixer, parsed_options, quick=quick)
        console.print(table)
        print(f"{verdict}\n", flush=True)
        verdicts[verdict] = passes
    if len(verdicts) > 1:
        print("\n".join(sorted(verdicts, key=verdicts.__getitem__)))  # failures first
    return all(verdicts.values())


def report(mixer: mixers.Resolved, options: Mapping[str, Any], *, quick: bool = False) -> tuple[Table, str, bool]:
    """Return the table of findings, the verdict, and whether the mixer satisfies the contract."""
    label = mixers.label(mixer, options)
    table = plain_table()
    table.add_column(label, no_wrap=True)
    table.add_column("")
    table.add_column("", overflow="fold")
    findings = []
    for finding in check(mixer, options, quick=quick):
        findings.append(finding)
        table.add_row(finding.check, Text(finding.status, STYLES[finding.status]), Text(finding.detail))
        if sys.stderr.isatty():
            print(f"\r{label}: {len(findings)} checks\x1b[K", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    if failed := [f.check for f in findings if f.status == "FAIL"]:
        return table, f"{label} FAILS the contract: {'; '.join(failed)}", False
    flags = " and ".join(f.check for f in findings if f.status == "flag")
    flagged = f", with a flag on {flags}" if flags else ""
    return table, f"{label} satisfies the contract: {len(findings)} checks{flagged}", True
