"""Splits of all tasks: no example occurs twice, labels are as documented, vocabularies are fixed."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from tasks import listops, load_task, pathfinder
from tasks.core import GENERATED, SAMPLE, SPLITS, Split, no_progress
from tasks.retrieval import pair_split
from tasks.text import sample as text_sample

# Of Text, Retrieval and Image the shorter inputs: where those differ, the longer ones do.
SAMPLES = [
    ("listops", "full"), ("listops", "short"), ("text", "cut"), ("retrieval", "cut"), ("image", "16"),
    ("pathfinder", "full"), ("pathfinder", "12"),
]  # fmt: skip
SHORTENED = [("listops", "short"), ("pathfinder", "full"), ("pathfinder", "12")]


def splits_of(task: str, variant: str, source: str) -> dict[str, Split]:
    built = load_task(task).build(variant, source, Path("nowhere"), workers=1, progress=no_progress)
    return {part.split: part.examples for part in built}


def hashes(split: Split) -> set[bytes]:
    """Return the hash of each example's document or ordered pair."""
    rows = split.items.reshape(len(split), -1).tolist()
    return {b"".join(hashlib.sha256(split.document(d)).digest() for d in row) for row in rows}


def no_example_is_twice(splits: dict[str, Split]) -> None:
    hashes_of = {name: hashes(split) for name, split in splits.items()}
    for name, split in splits.items():
        assert len(hashes_of[name]) == len(split), f"{name} has an example twice"
    assert len(set().union(*hashes_of.values())) == sum(map(len, hashes_of.values())), "an example is in two splits"


@pytest.mark.slow
@pytest.mark.parametrize(("task", "variant"), SAMPLES)
def test_samples_have_no_duplicates(task: str, variant: str) -> None:
    splits = splits_of(task, variant, SAMPLE)
    assert tuple(splits) == (("train", "test") if task == "text" else SPLITS)
    no_example_is_twice(splits)
    classes = len(load_task(task).CARD.classes)
    for split in splits.values():
        counts = np.bincount(split.labels, minlength=classes)
        if task in ("text", "retrieval", "image"):  # as many of each class
            assert counts.tolist() == [len(split) // classes] * classes
        elif task == "pathfinder":  # a fair coin
            assert abs(counts[1] - len(split) / 2) < 5 * np.sqrt(len(split) / 4)
        else:  # the value of the expression
            values = [listops.evaluate(listops.decode(split.document(d))) for d in split.items]
            assert values == split.labels.tolist()


@pytest.mark.parametrize(("task", "variant"), SHORTENED)
def test_generated_data_have_no_duplicates(task: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits are parts of one list, shortened in this test."""
    module = load_task(task)
    sizes = dict(zip(SPLITS, (1_500, 600, 400), strict=True))
    shorter = dataclasses.replace(module.CARD.variants[variant], sizes=sizes)
    card = dataclasses.replace(module.CARD, variants={**module.CARD.variants, variant: shorter})
    monkeypatch.setattr(module, "CARD", card)
    splits = splits_of(task, variant, GENERATED)
    assert {name: len(split) for name, split in splits.items()} == sizes
    no_example_is_twice(splits)
    if task == "pathfinder":
        images, labels = pathfinder.generate(2_500, resolution=32 if variant == "full" else 12, seed=1805)
        for name, part in zip(SPLITS, (slice(0, 1_500), slice(1_500, 2_100), slice(2_100, 2_500)), strict=True):
            np.testing.assert_array_equal(splits[name].data, images[part].reshape(-1))
            np.testing.assert_array_equal(splits[name].labels, labels[part])


def test_documents_that_are_cut_when_prepared_keep_their_first_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    long = bytes(range(1, 250)) * 100
    reviews = {name: [(bytes([65 + label]) + long, label) for label in (0, 1)] for name in ("train", "test")}
    monkeypatch.setattr(text_sample, "reviews", lambda _: reviews)
    for variant, size in (("full", 16_384), ("cut", 256)):
        for split in splits_of("text", variant, SAMPLE).values():
            documents = {label: split.document(d) for d, label in zip(split.items, split.labels.tolist(), strict=True)}
            assert documents == {label: (bytes([65 + label]) + long)[:size] for label in (0, 1)}
    pairs = pair_split([long, b"short"], np.array([1], np.uint8), np.array([[1, 0]], np.int32), 4_096)
    assert [pairs.document(d) for d in pairs.items[0]] == [b"short", long[:4_096]]


def test_the_order_of_the_listops_vocabulary_is_fixed() -> None:
    """Another order would be another task for a trained model."""
    expression = "[MIN 0 [SM 9 5 ] [MAX 1 2 ] [MED 3 4 ] ]"
    assert listops.encode(expression) == bytes([10, 0, 13, 9, 5, 14, 11, 1, 2, 14, 12, 3, 4, 14, 14])
    assert listops.CARD.vocab_size == 16


def test_classes_are_in_the_order_of_their_labels() -> None:
    assert {task: load_task(task).CARD.classes for task in ("text", "retrieval", "pathfinder")} == {
        "text": ("neg", "pos"),
        "retrieval": ("not cited", "cited"),
        "pathfinder": ("not connected", "connected"),
    }
    assert load_task("listops").CARD.classes == tuple("0123456789")
    # as in batches.meta.txt of CIFAR-10
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert load_task("image").CARD.classes == tuple(names.split())
