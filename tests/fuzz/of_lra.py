"""Targets of `lra/` and `models/`: records, configurations, published figures, benchmarks, options of mixers."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from rich.console import Console

from lra import config as cfg
from lra.bench.run import Results
from lra.config import RunConfig
from lra.errors import ConfigError
from lra.leaderboard import build as leaderboard
from lra.leaderboard import published
from lra.record import files as rec
from lra.record import status
from lra.record.files import RecordFile
from lra.record.schema import RunRecord
from lra.record.validate import validate, validation_table
from lra.runtime import heartbeat
from models import mixers
from models.mixers.bigbird import BigBird
from tasks.core import SPLITS, Prepared, Split
from tests.fuzz.forms import joined, parted, patched
from tests.fuzz.target import Target
from tests.lra.record.test_validation import made

# ---- records

_SPLITS = {name: Split.from_documents([b"0", b"1"] * 20, [0, 1] * 20) for name in SPLITS}
_RECORD = made(Prepared("listops", "short", 1, "tiny", "0" * 64, _SPLITS))


def _record(data: bytes, place: Path) -> None:
    """A record is validated; and whatever is read as one stands on the board, in a format that the input chooses."""
    path = place / f"{_RECORD['id']}.json"
    path.write_bytes(patched(_RECORD, data))
    with (
        mock.patch.dict(os.environ, LRA_RESULTS=str(place / "results")),
        mock.patch.dict("os.environ", {"LRA_PREPARED": str(place / "prepared")}),
    ):
        reports = validate([path])
    console = Console(width=80, record=True, quiet=True)
    console.print(validation_table(reports))
    other = RecordFile(RunRecord.model_validate(_RECORD | {"seed": 1}), "yours", path)
    format = get_args(leaderboard.Format)[zlib.crc32(data) % len(get_args(leaderboard.Format))]
    shown = leaderboard.render(leaderboard.board([*rec.find([(place, "committed")]), other]), format)
    console.print(shown) if format == "table" else str(shown).encode()


def _record_seeds() -> list[bytes]:
    lines = [
        'status "truncated"\nsteps.done 3',
        'status "diverged"\ntest {}',
        'kind "floor"\nmixer.name "majority class"\nmixer.label "majority class"\ncolumn.protocol null',
        'kind "tuning"\nlearning_rate 0.1\ntrials [{"learning_rate": 0.1, "run": "a-b-c", "validation": null}]',
        'column.task "text"\ncolumn.variant "cut"\nconfig.train.steps 3\nseeds_together 2',
        'environment.backend "gpu"\nenvironment.device_count 8\nmixer.options {"a": 1}\nconfig.mixer_options {"a": 1}',
        "validation []\ncurve []\nselection.best_step null\nsteps_per_second 1.5",
        f'code.computing {{"sha256": "{"b" * 64}", "files": {{"lra/trainer.py": "{"c" * 64}"}}}}\nlater_sessions []',
        'message "x"\ntest.confusion [[1]]\ntest.correct_bits "eNo="\ntest.predictions "eNo="',
        'mixer.sha256 "' + "b" * 64 + '"\nmixer.name "a:B"\nmixer.label "a:B@bbbbbbbb(x)"\ncode.git_commit null',
    ]
    return [*(line.encode() for line in lines), json.dumps(_RECORD).encode(), b'{"schema": 1}']


_WORDS = tuple(
    f"\n{k}{f'.{inside}' if inside else ''} ".encode()
    for k, v in _RECORD.items()
    for inside in (v if isinstance(v, dict) else [""])
)
_VALUES = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"-1",
    b"1e999",
    b"1e99",
    b"NaN",
    b'"\\ud800"',
    b'"\\u001b"',
    b"[[]]",
    b"0.5",
    b"99999999999999999999",
)


# ---- what else is read


def _config(data: bytes, place: Path) -> None:
    (place / "config.json").write_bytes(patched(_CONFIG, data))
    with contextlib.suppress(ConfigError):
        config = RunConfig.read(place / "config.json")
        assert RunConfig.from_text(config.as_text()) == config
        assert config.sha256


def _resolved() -> cfg.RunConfig:
    named: dict[str, Any] = {"mixer": "cosformer", "mixer_label": "cosformer", "mixer_options": {"eps": 0.5}}
    return cfg.resolve(cfg.protocol("retrieval", "lra"), **named, mixer_sha256=None, task_version=1, seed=3)


_CONFIG = json.loads(_resolved().as_text())


def _status(data: bytes, place: Path) -> None:
    """The files of a run's directory: its configuration, its sign of life, and a record."""
    config, sign, record = parted(data, 3)
    run = place / "runs" / _RECORD["id"]
    (run / "records").mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_bytes(patched(_CONFIG, config))
    (run / heartbeat.FILE).write_bytes(patched(_SIGN, sign))
    (run / "records" / f"{_RECORD['id']}.json").write_bytes(patched(_RECORD, record))
    with mock.patch.dict("os.environ", {"LRA_RUNS": str(place / "runs")}):
        found = status.statuses()
    status.as_json(found).encode()
    Console(width=80, record=True, quiet=True).print(status.as_table(found))


_SIGN = {"state": "running", "message": "", "host": "x", "pid": 1, "time": 1e9, "step": 3, "steps_per_second": 0.5}


def _published(data: bytes, place: Path) -> None:
    (place / "published.toml").write_bytes(data)
    with contextlib.suppress(ValueError):
        published.accuracy([place / "published.toml"])
    with contextlib.suppress(ValueError):
        published.efficiency(place / "published.toml")


_PUBLISHED = b"""[[accuracy]]
source = "x"
family = "y"
protocol = "small"
averaging = "mean of what is given"
columns = ["listops", "text"]
labels = {a = {default = "softmax", text = "linear"}}
deviations = {a = [0.1, "-"]}
rows = {a = [37.9, "X", 1e1]}

[[efficiency]]
source = "x"
hardware = "y"
setting = "z"
quantity = "speed"
unit = "1/s"
lengths = ["1K"]
reference = "a"
rows = {a = [1], b = ["X"]}
"""


def _bench(data: bytes, place: Path) -> None:
    (place / "bench.json").write_bytes(patched(_BENCH, data))
    with contextlib.suppress(ConfigError):
        Results.read(place / "bench.json")


_CELL = {
    "mixer": "a",
    "length": 1024,
    "status": "measured",
    "training": {"steps": 1, "seconds": [1, 2, 3]},
    "inference": None,
}
_BENCH = {
    "schema": 1, "kind": "bench", "created": "x", "command": "x", "protocol": "lra@1", "batch_size": 1,
    "dtype": "float32", "roofline": {"flops_per_second": 1.0, "bytes_per_second": 2.0},
    "environment": {}, "code": {"sha256": "0"}, "cells": [_CELL],
}  # fmt: skip


def _options(data: bytes, place: Path) -> None:
    with contextlib.suppress(ValueError):
        given = mixers.parse_options(BigBird, data.decode("utf-8", "surrogateescape").split("\0"))
        mixers.label("bigbird", given)


TARGETS = {
    "record": Target(_record, _record_seeds, _WORDS + _VALUES),
    "config": Target(
        _config,
        lambda: [
            b"seed 4\ntrain.steps 10",
            b"model.head [1]\nlimit 5",
            b'model.pair "concat"',
            json.dumps(_CONFIG).encode(),
        ],
        (b"\ntrain.", b"\nmodel.", b"steps ", b"head ", b"\nlimit ", b"\nsource ", *_VALUES),
    ),
    "status": Target(
        _status,
        lambda: [
            joined(b"seed 4", b'state "failed"\nmessage "x"', b"{}"),
            joined(b" ", b"validation_accuracy 0.5", b" "),
            joined(b" ", b"{}", b'status "truncated"\nsteps.done 3\nvalidation []'),
        ],
        (b"\ntime ", b"\nstep ", b"\nsteps_per_second ", b"\nhost ", *_VALUES),
    ),
    "published": Target(
        _published, lambda: [_PUBLISHED], (b"[[accuracy]]", b"[[efficiency]]", b"rows", b"= [", b"1e1")
    ),
    "bench": Target(_bench, lambda: [b"batch_size 2", b"cells []", json.dumps(_BENCH).encode()], _VALUES),
    "options": Target(
        _options, lambda: [b"block=64", b"num_random=1\0random_span=none\0drop_weights=false"], (b"none", b"true", b"=")
    ),
}
