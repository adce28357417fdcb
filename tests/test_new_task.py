"""A task and a protocol are added by two files, and no file of the suite names them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lra.paths import ROOT

TASK = '''
"""Toy: is the first letter a vowel?"""

import numpy as np

from tasks.core import GENERATED, SPLITS, Built, Card, Split, Variant, check_request, chunk_rng, no_progress

SIZES = {"train": 64, "validation": 32, "test": 32}


def to_text(document):
    return document.decode().upper()


def write_official(splits, directory, variant):
    for name, split in splits.items():
        lines = [f"{to_text(split.document(d))} {label}" for d, label in zip(split.items, split.labels)]
        (directory / f"{variant}-{name}.txt").write_text("\\n".join(lines))


CARD = Card(
    name="toy",
    title="Toy",
    about="is the first letter a vowel?",
    version=1,
    tokenizer="byte + 1",
    vocab_size=257,
    classes=("consonant", "vowel"),
    pairs=False,
    selection="validation",
    variants={"full": Variant("all letters", SIZES, max_bytes=12)},
    sources=(GENERATED,),
    obtain="nothing is needed",
    licence="none",
    citation="none",
    balanced=False,
    to_text=to_text,
    write_official=write_official,
    baselines=("root operator", "byte n-grams"),
)


def locate(data_dir, variant, source):
    return []


def build(variant, source, data_dir, *, workers=1, progress=no_progress, work_dir=None):
    check_request(CARD, variant, source)
    letters = chunk_rng(1, 0).randint(ord("a"), ord("z") + 1, (sum(SIZES.values()), 12)).astype(np.uint8)
    start = 0
    for name in SPLITS:
        rows = letters[start : start + SIZES[name]]
        start += len(rows)
        labels = np.isin(rows[:, 0], np.frombuffer(b"aeiou", np.uint8))
        yield Built(name, Split.from_documents([row.tobytes() for row in rows], labels), "generated, seed 1")
'''

PROTOCOL = """
import dataclasses

from configs.shared import quick

BASE = quick("toy", "full", steps=2, batch_size=8, minutes="", expected={})
MODEL = dataclasses.replace(BASE.model, layers=1, d_model=8, heads=1, qkv_dim=8, mlp_dim=8, head=(8,))
TRAIN = dataclasses.replace(BASE.train, warmup=1, eval_every=1)
PROTOCOLS = {"tiny": dataclasses.replace(BASE, name="tiny", about="two steps", max_len=12, model=MODEL, train=TRAIN)}
"""

# The packages are extended by folders of their own, as if the two files were in tasks/ and configs/.
COMMANDS = """
import sys
from pathlib import Path

import pytest

import configs
import tasks

for package in (configs, tasks):
    package.__path__.append(f"{sys.argv[1]}/{package.__name__}")

import run_lra
from lra.data.prepare import prepare
from lra.record.baselines import write_baselines


def command(line):
    print(f"$ {line}", flush=True)
    assert run_lra.main(line.split()) == 0, line


command("data prepare --tasks toy")
command("data verify --tasks toy")
command("data show toy --output toy.png")
command("data export toy exported")
command("data export toy official --format lra")
for path in write_baselines(prepare("toy", "full"), tasks.load_task("toy").CARD):
    print(path.name)
command("train --task toy --mixer linear --protocol tiny")
command("validate runs")
command("leaderboard --protocol tiny --format md")
command("list")
"""


@pytest.mark.slow
def test_a_new_task_and_protocol_run_end_to_end(tmp_path: Path) -> None:
    for folder, content in (("tasks", TASK), ("configs", PROTOCOL)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "toy.py").write_text(content)
    directories = {f"LRA_{name.upper()}": str(tmp_path / name) for name in ("data", "prepared", "runs", "results")}
    environment = {**os.environ, **directories, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = dict(part.split("\n", 1) for part in done.stdout.split("$ ")[1:])

    assert (
        "toy full: 64 train, 32 validation, 32 test; source: generated, seed 1" in outputs["data prepare --tasks toy"]
    )
    assert "ok" in outputs["data verify --tasks toy"]
    with Image.open(tmp_path / "toy.png") as picture:
        assert (np.asarray(picture.convert("L")) < 128).any()
    names = sorted(path.name for path in (tmp_path / "official").iterdir())
    assert names == ["full-test.txt", "full-train.txt", "full-validation.txt"]
    text, label = (tmp_path / "official" / "full-test.txt").read_text().splitlines()[0].split()
    assert (text.isupper(), int(label)) == (True, text[0] in "AEIOU")
    import tensorflow_datasets as tfds

    example = tfds.builder_from_directory(tmp_path / "exported").as_data_source("test")[0]
    assert (example["text"].decode(), example["label"]) == (text, int(label))

    records = [
        json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("*.json") if '"kind"' in path.read_text()
    ]
    labels = sorted(record["mixer"]["label"] for record in records if record["kind"] == "floor")
    assert labels == ["byte n-grams", "majority class", "root operator"]
    (run,) = [record for record in records if record["kind"] == "run"]
    assert (run["status"], run["steps"]["done"], run["column"]["task"], run["column"]["protocol"]) == (
        *("complete", 2),
        *("toy", "tiny"),
    )
    assert "FAIL" not in outputs["validate runs"]
    assert "| linear |" in outputs["leaderboard --protocol tiny --format md"]
    assert "Toy, version 1: is the first letter a vowel?" in outputs["list"]
