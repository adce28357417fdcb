"""Inputs longer than `max_len`: images are refused, texts are cut at their end and counted in a note."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

import run_lra
from lra import api
from lra.config import protocols
from lra.data.prepare import check_length, cut_note
from lra.errors import ConfigError
from lra.training.device_dataset import gather, put_split
from tasks import available, load_task
from tasks.core import Prepared, Split

ROOT = Path(__file__).resolve().parents[3]
PICTURES = {"image": {"full": 32, "16": 16}, "pathfinder": {"full": 32, "12": 12, "64": 64, "128": 128, "256": 256}}


def of_train(split: Split) -> Prepared:
    return Prepared("text", "full", 1, "sample", "0" * 64, {"train": split})


@pytest.mark.parametrize("task", available())
def test_image_tasks_need_the_length_of_their_images(task: str) -> None:
    card = load_task(task).CARD
    assert card.images == (task in PICTURES)
    for variant, side in PICTURES.get(task, {}).items():
        check_length(card, variant, side * side)
        with pytest.raises(ConfigError, match=f"{task} {variant}: .*give --max-len {side * side}$"):
            check_length(card, variant, side * side - 1)
    if not card.images:
        for variant in card.variants:
            check_length(card, variant, 1)


@pytest.mark.parametrize("task", available())
def test_no_protocol_cuts_an_image(task: str) -> None:
    for base in protocols(task).values():
        check_length(load_task(task).CARD, base.variant, base.max_len)


@pytest.mark.parametrize("words", [["--variant", "128"], ["--max-len", "1023"]])
def test_an_image_that_would_be_cut_is_an_error_before_anything_is_written(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    monkeypatch.setattr(api, "prepare", None)  # to prepare anything would fail in another way
    train = ["train", "--task", "pathfinder", "--mixer", "linear", "--protocol", "small"]
    assert run_lra.main([*train, *words]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: pathfinder ")
    assert message.count("\n") == 1
    needed, given = (16_384, "1,024") if words[0] == "--variant" else (1_024, "1,023")
    assert f"an image has {needed:,} pixels and max_len is {given}" in message
    assert f"--max-len {needed}" in message
    assert list(tmp_path.iterdir()) == []


def test_a_max_len_longer_than_the_image_is_allowed() -> None:
    overrides = {"variant": "128", "max_len": 16_384}
    assert api.configure("pathfinder", "linear", protocol="small", overrides=overrides).max_len == 16_384
    assert api.configure("image", "linear", protocol="small", overrides={"max_len": 2_000}).max_len == 2_000


def test_the_note_counts_training_examples_that_are_cut() -> None:
    split = Split.from_documents([b"abc", b"abcd", b"abcde", b"a"], [0, 1, 0, 1])
    assert cut_note(of_train(split), 5) is None
    assert cut_note(of_train(split), 4) == (
        "note: 1 of 4 training examples of text (25.0 %) are longer than max_len 4; only their first 4 bytes are read"
    )
    note = cut_note(of_train(split), 2)
    assert note is not None
    assert "3 of 4" in note
    pairs = Split.from_documents([b"ab", b"abcdef", b"a"], [0, 1, 0], [[0, 2], [0, 1], [1, 2]])
    note = cut_note(of_train(pairs), 3)
    assert note is not None
    assert "2 of 3" in note


@pytest.mark.slow
def test_a_run_prints_the_note_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_PREPARED", str(ROOT / ".cache" / "prepared-for-tests"))
    small = {"model.layers": 1, "model.d_model": 16, "model.qkv_dim": 16, "train.steps": 1, "train.batch_size": 2}
    for overrides, notes in (({"max_len": 250}, 1), ({}, 0)):
        api.run("listops", "linear", protocol="quick", source="sample", limit=2, overrides={**small, **overrides})
        assert capsys.readouterr().err.count("training examples of listops") == notes


def test_a_document_longer_than_max_len_keeps_its_first_bytes() -> None:
    """In ragged data and in data of equal lengths, which are stored differently."""
    review = bytes(range(100, 120))
    for others in ([b"short"], [bytes(reversed(review))]):
        split = Split.from_documents([*others, review], [0, 1])
        data = put_split(split, 8, SingleDeviceSharding(jax.devices()[0]))
        ids, labels = gather(data, jnp.array([1]), 8)
        assert ids.tolist() == [[byte + 1 for byte in review[:8]]]
        assert labels.tolist() == [1]


def test_ids_are_bytes_plus_one_and_zero_is_padding_alone() -> None:
    document = bytes(range(256))
    data = put_split(Split.from_documents([document, b"\x00"], [0, 1]), 256, SingleDeviceSharding(jax.devices()[0]))
    ids = np.asarray(gather(data, jnp.array([0, 1]), 256)[0])
    np.testing.assert_array_equal(ids[0], np.arange(1, 257))
    np.testing.assert_array_equal(ids[1], [1] + [0] * 255)
    assert {load_task(task).CARD.vocab_size for task in available() if task != "listops"} == {257}
