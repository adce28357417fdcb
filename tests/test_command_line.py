"""Every option of every command arrives where it is used; nothing is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_lra
from lra import api
from lra import config as cfg
from lra.commands import arguments, many_runs
from lra.config import Model, RunConfig, Slurm, Train
from lra.runtime import distributed
from lra.sweep import plan as sweep
from lra.sweep.plan import Sweep
from tasks import load_task
from tasks.errors import DataError
from tasks.image import CARD
from tests.lra.distinct import changed_fields, distinct

Calls = list[dict[str, Any]]


class Stop(Exception):
    """Ends a command where its options have arrived."""


def flag(name: str, value: Any) -> list[str]:
    """Return the words of an option of the command line."""
    path, _, last = name.replace("_", "-").rpartition(".")
    dotted = f"{path}." if path else ""
    if isinstance(value, bool):
        return [f"--{dotted}{last}" if value else f"--{dotted}no-{last}"]
    return [f"--{dotted}{last}", *map(str, value if isinstance(value, tuple) else (value,))]


def words(group: str, values: Any) -> list[str]:
    named = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    return [word for name, value in named.items() for word in flag(f"{group}.{name}" if group else name, value)]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What `train` asks for."""
    calls: Calls = []

    def run_config(config: RunConfig, **options: Any) -> None:
        calls.append({"config": config, **options})

    monkeypatch.setattr(api, "run_config", run_config)
    monkeypatch.setattr(api, "summary", lambda _: "")
    return calls


def test_all_options_of_train_arrive(configured: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    initialized: list[bool] = []
    monkeypatch.setattr(distributed, "initialize", lambda: initialized.append(True))
    base = cfg.protocol("retrieval", "laptop")
    model = distinct(base.model, heads=3, qkv_dim=321, pair="concat", dropout=0.0625, attention_dropout=0.625)
    train = distinct(base.train, batch_size=30, micro_batch=15, dispatch_steps=2, length_shards=7)
    assert changed_fields(base.model, model).keys() == {f.name for f in dataclasses.fields(Model)}
    assert changed_fields(base.train, train).keys() == {f.name for f in dataclasses.fields(Train)}
    given = ["--task", "retrieval", "--protocol", "laptop", "--mixer", "bigbird", "--max-len", "99", "--variant", "cut"]
    given += ["--seed", "5", "--source", "sample", "--limit", "17", "--max-minutes", "2.5"]
    given += ["--mixer-options", "block=32", "num_random=2", "--distributed", "--tensorboard"]
    assert run_lra.main(["train", *given, *words("model", model), *words("train", train)]) == 0
    (call,) = configured
    config = call.pop("config")
    assert call == {"max_minutes": 2.5, "tensorboard": True}
    assert config.seed == 5
    assert initialized == [True]
    assert (config.model, config.train) == (model, train)
    wanted = {"task": "retrieval", "protocol": "laptop", "mixer": "bigbird", "max_len": 99, "variant": "cut", "seed": 5}
    wanted |= {"source": "sample", "limit": 17, "mixer_options": {"block": 32, "num_random": 2}, "modified": True}
    wanted |= {"mixer_label": "bigbird(block=32, num_random=2)", "protocol_version": base.version}
    assert {name: getattr(config, name) for name in wanted} == wanted
    again = RunConfig.from_text(config.as_text())
    assert again == config
    assert changed_fields(again, config) == {}


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in cfg.TASKS for name in cfg.protocols(task)])
def test_train_without_options_is_the_protocol(configured: Calls, task: str, name: str) -> None:
    assert run_lra.main(["train", "--task", task, "--protocol", name, "--mixer", "cosformer"]) == 0
    (call,) = configured
    assert call == {
        "config": api.configure(task, "cosformer", protocol=name),
        "max_minutes": None,
        "tensorboard": False,
    }
    base = cfg.protocol(task, name)
    config = call["config"]
    assert not config.modified
    assert (config.model, config.train, config.max_len, config.variant, config.source) == (
        *(base.model, base.train, base.max_len, base.variant, base.source),
    )


def test_all_options_of_a_suite_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sweep, "submit", lambda *arguments: seen.extend(arguments) or [])
    monkeypatch.setattr(sweep, "suite", lambda wanted, parallel: seen.extend((wanted, parallel)) or ["one that failed"])
    monkeypatch.setattr(many_runs, "print_results", lambda protocol, labels: seen.extend((protocol, labels)))
    wanted = Sweep(("text", "image"), ("fnet", "lru"), "lra", seeds=4, max_minutes=1.5, tune=True)
    assert changed_fields(Sweep(("listops",), ("linear",), "small"), wanted).keys() == {
        field.name for field in dataclasses.fields(Sweep)
    }
    options = distinct(Slurm(), extra=("account=lab", "exclusive"))
    assert run_lra.main(["suite", *words("", wanted), "--launcher", "slurm", *words("slurm", options)]) == 0
    assert seen == [wanted, options]
    seen.clear()
    assert run_lra.main(["suite", *words("", wanted), "--parallel", "3"]) == 1
    assert seen == [wanted, 3, "lra", {"fnet", "lru"}]
    seen.clear()
    run_lra.main(["suite", "--protocol", "quick"])
    tasks = tuple(base.task for base in cfg.protocols_named("quick"))
    assert seen[0] == Sweep(tasks, ("cosformer", "softmax"), "quick", seeds=1, max_minutes=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slurm.partition", "gpu"], "--slurm.* options need --launcher slurm"),
        (["--launcher", "slurm", "--parallel", "2"], "--parallel is for this machine"),
        (["--parallel", "0"], "--parallel must be at least 1, not 0"),
        (["--seeds", "-1"], "--seeds must be at least 1, not -1"),
    ],
)
def test_options_of_a_suite_that_would_be_ignored_are_errors(options: list[str], message: str, capsys: Any) -> None:
    assert run_lra.main(["suite", "--protocol", "quick", *options]) == 1
    assert message in capsys.readouterr().err


def test_help_names_every_variant() -> None:
    named = {name: {"full"} for name in cfg.TASKS}
    for names, tasks in re.findall(r" ([^;:]+?) \(([^)]+)\)", arguments.VARIANTS):
        for task in tasks.split(", "):
            named[task] |= set(names.split(", "))
    assert named == {name: set(load_task(name).CARD.variants) for name in cfg.TASKS}


@pytest.mark.parametrize("verb", ["prepare", "verify"])
def test_data_of_all_tasks(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def prepare(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise DataError("missing")

    monkeypatch.setattr("lra.data.prepare.prepare", prepare)
    assert run_lra.main(["data", verb]) == 1
    assert asked == [(task, "full", None) for task in cfg.TASKS]


def recorder(function: Callable[..., Any], calls: Calls) -> Callable[..., Any]:
    """Return a stand-in for a function that records its arguments by name and stops the command."""
    signature = inspect.signature(function)

    def record(*arguments: Any, **keywords: Any) -> Any:
        bound = signature.bind(*arguments, **keywords)
        bound.apply_defaults()
        calls.append(bound.arguments)
        raise Stop

    return record


COMMANDS: list[tuple[str, str, dict[str, Any]]] = [
    ("evaluate a-run", "lra.finished.evaluate_run", {"name": "a-run"}),
    (
        "attention a b --example 7 --output out.png",
        "lra.analysis.attention_maps.draw",
        {"runs": ("a", "b"), "example": 7, "path": Path("out.png")},
    ),
    (
        "repro text fnet --protocol lra --seeds 2 --max-minutes 3.5",
        "lra.sweep.reproduce.reproduce",
        {"task": "text", "mixer": "fnet", "protocol": "lra", "seeds": 2, "max_minutes": 3.5},
    ),
    (
        "repro text fnet",
        "lra.sweep.reproduce.reproduce",
        {"task": "text", "mixer": "fnet", "protocol": "small", "seeds": 3, "max_minutes": None},
    ),
    ("submit a-run", "lra.record.submit.submit", {"run_name": "a-run"}),
    ("validate a.json b", "lra.record.validate.validate", {"paths": (Path("a.json"), Path("b"))}),
    ("validate", "lra.record.validate.validate", {"paths": ()}),
    ("leaderboard --protocol laptop --format csv", "lra.leaderboard.build.board", {"protocol": "laptop"}),
    ("leaderboard", "lra.leaderboard.build.board", {"protocol": None}),
    ("check", "lra.contract.report.check_all", {"names": (), "options": (), "quick": False}),
    ("attention a", "lra.analysis.attention_maps.draw", {"runs": ("a",), "example": 0, "path": Path("attention.png")}),
    (
        "check fnet local --mixer-options window=8 --quick",
        "lra.contract.report.check_all",
        {"names": ("fnet", "local"), "options": ("window=8",), "quick": True},
    ),
    (
        "bench fnet lru --lengths 64 128 --protocol lra --batch-size 3 --dtype bfloat16 --seconds 4.5 --output out",
        "lra.bench.run.bench",
        {
            **{"names": ("fnet", "lru"), "lengths": (64, 128), "protocol": "lra", "batch_size": 3},
            **{"dtype": "bfloat16", "seconds": 4.5, "directory": Path("out")},
        },
    ),
    (
        "bench",
        "lra.bench.run.bench",
        {
            **{"names": (), "lengths": (1024, 2048, 3072, 4096), "protocol": None, "batch_size": 32},
            **{"dtype": "float32", "seconds": 60.0},
        },
    ),
    (
        "data prepare --tasks image --variant 16 --source tfds",
        "lra.data.prepare.prepare",
        {"task": "image", "variant": "16", "source": "tfds", "allow_sample": False},
    ),
    (
        "data verify --tasks image --variant 16 --source tfds",
        "lra.data.prepare.prepare",
        {"task": "image", "variant": "16", "source": "tfds", "allow_sample": False},
    ),
    (
        "data show image --variant 16 --source tfds --output out.png",
        "lra.data.prepare.prepare",
        {"task": "image", "variant": "16", "source": "tfds", "allow_sample": True},
    ),
    (
        "data export image there --variant 16 --source tfds --format lra",
        "lra.data.prepare.prepare",
        {"task": "image", "variant": "16", "source": "tfds", "allow_sample": True},
    ),
]


def arguments_of(line: str, place: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the arguments of the function at a place when a command calls it."""
    module_name, _, name = place.rpartition(".")
    module = importlib.import_module(module_name)
    calls: Calls = []
    monkeypatch.setattr(module, name, recorder(getattr(module, name), calls))
    with contextlib.suppress(Stop):
        run_lra.main(line.split())
    (call,) = calls
    return call


@pytest.mark.parametrize(("line", "place", "wanted"), COMMANDS, ids=[line for line, *_ in COMMANDS])
def test_all_options_of_a_command_arrive(
    line: str, place: str, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = arguments_of(line, place, monkeypatch)
    assert {argument: call[argument] for argument in wanted} == wanted


@pytest.mark.parametrize(
    ("line", "place", "wanted"),
    [
        ("leaderboard", "lra.leaderboard.build.render", {"format": "table"}),
        ("leaderboard --format latex", "lra.leaderboard.build.render", {"format": "latex"}),
        (
            "data export image there --format lra",
            "lra.data.export.export",
            {"directory": Path("there"), "format": "lra"},
        ),
        ("data export image there", "lra.data.export.export", {"directory": Path("there"), "format": "tfds"}),
        ("data show image --output a.png", "lra.data.preview.show", {"card": CARD, "path": Path("a.png")}),
        ("data show image --variant 16", "lra.data.preview.show", {"card": CARD, "path": Path("image-16.png")}),
    ],
)
def test_what_a_command_does_at_its_end_is_what_was_asked_for(
    line: str, place: str, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lra.data.prepare.prepare", lambda *_, **__: None)
    call = arguments_of(line, place, monkeypatch)
    assert {argument: call[argument] for argument in wanted} == wanted
