"""`run_lra.py check`: a mixer put to its contract, with a table that a person can read and one verdict line.

The checks of `lra.contract.checks` come first, at a length of 150 and then at 1,100, where windows and blocks of usual
sizes are many. Then what takes longer: a new process, growth with the length, number of parameters.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lra.api import configure, find_mixer
from lra.config import protocols_named
from lra.contract import checks as contract
from lra.contract import scaling as growth
from lra.contract.harness import DIMS, TOLERANCES, Broken, Probe, Subject, unoptimised
from lra.training.checkpoints import Checkpoints
from lra.training.step_functions import StepFunctions, TrainState
from models import mixers
from tasks import load_task
from tasks.processes import process_pool

LONG: dict[str, Any] = {"lengths": (700, 90, 1), "length": 800}
LONG_CHECKS = ("content of padding", "amount of padding", "rest of the batch", "an example of padding")
SLACK = 0.15  # of an exponent of operations or memory above what is claimed
TIME_SLACK = 0.5  # of measured time: caches, and whatever else the machine does. Beyond, a flag and not a failure

Status = Literal["pass", "flag", "FAIL"]


@dataclasses.dataclass(frozen=True)
class Finding:
    check: str
    status: Status
    detail: str


class Flag(Exception):
    """Nothing is broken; a reader of the board should know."""


def check(mixer: mixers.Resolved, options: Mapping[str, Any], *, quick: bool = False) -> Iterator[Finding]:
    """The findings, as they are made. If the first check fails there are no others."""
    for number, (name, run) in enumerate(checks(mixer, options, quick)):
        finding = examine(name, run)
        yield finding
        if number == 0 and finding.status == "FAIL":
            return


def checks(mixer: mixers.Resolved, options: Mapping[str, Any], quick: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    subject = Subject(mixer, options)
    for name, function in contract.QUICK.items():
        yield name, unoptimised()(partial(function, subject))
    if quick:
        return
    long = Subject(mixer, options, dataclasses.replace(DIMS, max_len=1100), **LONG)
    for name in LONG_CHECKS:
        yield f"{name}, long", unoptimised()(partial(contract.QUICK[name], long))
    yield "encoder", unoptimised()(partial(contract.encoder, subject))
    yield "a new process", partial(new_process, subject)
    yield "growth", partial(growth_with_length, subject)
    yield "parameters", partial(parameters, subject)


def examine(name: str, run: Callable[[], str]) -> Finding:
    """A mixer's own error is a finding: its message, and the place in the mixer's code that raised it."""
    try:
        return Finding(name, "pass", run())
    except Flag as flag:
        return Finding(name, "flag", str(flag))
    except Broken as broken:
        return Finding(name, "FAIL", str(broken))
    except Exception as error:
        here = Path(__file__).resolve().parent
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        theirs = [f for f in frames if Path(f.filename).resolve().parent != here] or frames
        place = f"{Path(theirs[-1].filename).name}:{theirs[-1].lineno}"
        said = str(error).strip().partition("\n")[0]
        return Finding(name, "FAIL", f"{place} raised {type(error).__name__}: {said}")


def new_process(subject: Subject) -> str:
    """Saved by the trainer's checkpoints, built with another seed and loaded in a new process: the same results."""
    probe = Probe(subject, "float32")
    want = np.asarray(probe.outputs(*probe.inputs()))
    with tempfile.TemporaryDirectory() as directory:
        Checkpoints(Path(directory)).save("latest", TrainState(1, probe.params, probe.rest, ()), {})
        with process_pool(1) as pool:
            got = pool.submit(_outputs_of_saved, subject.mixer.spec, dict(subject.options), directory).result()
    moved = float(np.abs(got - want).max() / np.abs(want).max())
    if moved > TOLERANCES["float32"]:
        raise Broken(
            f"results move by {moved:.1e}: something drawn or computed at construction is neither nnx.Param nor Buffer"
        )
    return "saved, loaded, equal"


def _outputs_of_saved(spec: str, options: Mapping[str, Any], directory: str) -> np.ndarray:
    probe = Probe(Subject(mixers.resolve(spec), options), "float32", seed=1)
    loaded = Checkpoints(Path(directory)).load("latest", TrainState(1, probe.params, probe.rest, ()))
    if loaded is None:
        raise Broken("nothing was saved")
    probe.params, probe.rest = loaded[0].params, loaded[0].buffers
    return np.asarray(probe.outputs(*probe.inputs()))


def growth_with_length(subject: Subject, lengths: Sequence[int] = growth.LENGTHS) -> str:
    """Operations and memory between the two longest lengths, time between the shortest and the longest."""
    dims = dataclasses.replace(subject.dims, d_model=32, qkv_dim=32, mlp_dim=64)
    points = growth.measure(subject.mixer.cls, subject.options, dims, lengths)
    short, middle, last = points[0], points[-2], points[-1]
    grown = {of: growth.exponent(middle, last, of) for of in ("flops", "bytes")}
    seconds = growth.exponent(short, last, "seconds")
    text = f"operations L^{grown['flops']:.2f}, memory L^{grown['bytes']:.2f}, measured time L^{seconds:.2f}"
    text += f" ({1e3 * last.seconds:.0f} ms, {last.bytes / 2**20:.0f} MiB at {last.length:,})"
    if subject.mixer.complexity is None:
        raise Flag(f'{text}; its file claims nothing: COMPLEXITY = ("L", "L") says how time and memory grow')
    claims = dict(zip(("time", "memory"), subject.mixer.complexity, strict=True))
    allowed = {what: growth.claimed_exponent(claim, middle, last) for what, claim in claims.items()}
    grew = {"time": grown["flops"], "memory": grown["bytes"]}
    if exceeded := [f"{what} O({claims[what]})" for what in claims if grew[what] > allowed[what] + SLACK]:
        raise Broken(f"claims {' and '.join(exceeded)}, has {text}")
    if seconds > allowed["time"] + TIME_SLACK:
        raise Flag(f"{text}: slower than the claimed O({claims['time']}), if nothing else ran meanwhile")
    return text


def parameters(subject: Subject) -> str:
    """Of the whole model under `small`, against softmax: LRA asks for 10 % (Tay et al., 2020, section 3.2)."""
    ratios = {}
    for task in [protocol.task for protocol in protocols_named("small")]:
        card = load_task(task).CARD
        mine = StepFunctions(
            configure(task, subject.mixer.spec, protocol="small", options=subject.options), card
        ).parameters
        ratios[task] = mine / StepFunctions(configure(task, "softmax", protocol="small"), card).parameters
    text = ", ".join(f"{task} {ratio:.2f}" for task, ratio in ratios.items()) + " of softmax's under `small`"
    if outside := [task for task, ratio in ratios.items() if abs(ratio - 1) > 0.1]:
        raise Flag(f"{text}: more than 10 % apart in {', '.join(outside)}")
    return text


def check_all(names: Sequence[str], options: Sequence[str] = (), *, quick: bool = False) -> bool:
    """Prints the table and the verdict of each mixer, of the project's where none is named; whether all hold.

    Raises:
      ConfigError: there is no such mixer or option; nothing was run.
    """
    console = Console()
    verdicts: dict[str, bool] = {}
    for mixer, given in [find_mixer(name, options) for name in names or mixers.available()]:
        table, verdict, holds = report(mixer, given, quick=quick)
        console.print(table)
        print(f"{verdict}\n", flush=True)
        verdicts[verdict] = holds
    if len(verdicts) > 1:
        print("\n".join(sorted(verdicts, key=verdicts.__getitem__)))  # what fails first
    return all(verdicts.values())


def report(mixer: mixers.Resolved, options: Mapping[str, Any], *, quick: bool = False) -> tuple[Table, str, bool]:
    """The table of findings, the verdict line, and whether the contract holds."""
    label = mixers.label(mixer, options)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(label, no_wrap=True)
    table.add_column("")
    table.add_column("", overflow="fold")
    findings = []
    for finding in check(mixer, options, quick=quick):
        findings.append(finding)
        style = {"pass": "green", "flag": "yellow", "FAIL": "bold red"}[finding.status]
        table.add_row(finding.check, Text(finding.status, style), Text(finding.detail))
        if sys.stderr.isatty():
            print(f"\r{label}: {len(findings)} checks\x1b[K", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    failed = [f.check for f in findings if f.status == "FAIL"]
    flags = [f.check for f in findings if f.status == "flag"]
    if failed:
        return table, f"{label} FAILS the contract: {'; '.join(failed)}", False
    flagged = f", with a flag on {' and '.join(flags)}" if flags else ""
    return table, f"{label} holds the contract: {len(findings)} checks{flagged}", True
