"""Verification names every problem, and describes samples and copies without judging them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lra.data.prepare import class_names, image_side, prepare
from lra.data.verify import Report, verify, verify_table
from tasks import image, listops, load_task, pathfinder, retrieval, text
from tasks.core import SAMPLE, Card, Prepared, Split
from tasks.errors import DataError


def prepared(
    card: Card, splits: dict[str, Split], source: str = "generated, seed 0", variant: str = "full"
) -> Prepared:
    digest = "".join(f"{name}:{split.sha256}\n" for name, split in sorted(splits.items()))
    return Prepared(card.name, variant, card.version, source, hashlib.sha256(digest.encode()).hexdigest(), splits)


def small_card(card: Card, **sizes: int) -> Card:
    variant = dataclasses.replace(card.variants["full"], sizes=sizes)
    return dataclasses.replace(card, variants={**card.variants, "full": variant}, copy_notes=None)


def printed(report: Report, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(verify_table(report))
    return out.getvalue()


ONE_OF_EACH = [bytes([digit, digit]) for digit in range(10)]
CARD = small_card(listops.CARD, train=20, validation=10, test=10)
GOOD = {
    "train": Split.from_documents(
        [d + b"\x0e" for d in ONE_OF_EACH] + [b"\x0b" + d for d in ONE_OF_EACH], [*range(10)] * 2
    ),
    "validation": Split.from_documents(ONE_OF_EACH, range(10)),
    "test": Split.from_documents([d[:1] for d in ONE_OF_EACH], range(10)),
}


def broken(**splits: Split) -> Report:
    return verify(prepared(CARD, {**GOOD, **splits}), CARD)


def test_good_data_has_no_problems_and_true_figures() -> None:
    report = verify(prepared(CARD, GOOD), CARD)
    assert report.ok
    assert report.notes == ()
    train, validation, test = report.splits
    assert (train.examples, train.expected, train.class_counts) == (20, 20, (2,) * 10)
    assert (train.bytes_min, train.bytes_mean, train.bytes_max) == (3, 3.0, 3)
    assert (validation.bytes_min, test.bytes_max, test.outside, test.shared_inputs) == (2, 1, 0, 0)
    assert train.sha256 == GOOD["train"].sha256


def test_overlap_is_counted_by_content_and_is_a_problem_of_generated_data() -> None:
    copy = GOOD["train"].document(3)
    test = Split.from_documents([copy, copy, *(d[:1] for d in ONE_OF_EACH[2:])], range(10))
    report = broken(test=test)
    assert report.splits[2].shared_inputs == 2
    assert report.splits[2].shared_documents == 1
    assert report.problems == ("2 of 10 inputs of test are also in train",)
    copied = verify(prepared(CARD, {**GOOD, "test": test}, "unrecognised copy 12345678"), CARD)
    assert copied.ok
    assert copied.notes == report.problems


def test_the_leak_of_memorised_documents_is_a_note() -> None:
    # In train, a is twice in pairs of label 1 and once of 0, b once with each, c twice with 0, d once with 1.
    texts = [letter.encode() for letter in "abcdxyz"]
    train = Split.from_documents(texts, [1, 1, 0, 0], [[0, 1], [3, 0], [0, 2], [2, 1]])
    # a+x is predicted correctly, c+y, d+a and d+c wrongly; b+x is a tie; x+y and y+x are unknown.
    test = Split.from_documents(texts, [1, 1, 0, 1, 1, 1, 0], [[0, 4], [2, 5], [3, 0], [1, 4], [3, 2], [4, 5], [5, 4]])
    report = verify(prepared(retrieval.CARD, {"train": train, "test": test}, "sample"), retrieval.CARD)
    [note] = [note for note in report.notes if "document of train" in note]
    assert "5 of 7 pairs of test" in note
    assert "right for 25.0 % of 4 pairs" in note


def test_an_overlap_of_pairs_is_one_of_ordered_pairs() -> None:
    documents = [b"a", b"b", b"c"]
    splits = {
        "train": Split.from_documents(documents, [0, 1], [[0, 1], [1, 2]]),
        "validation": Split.from_documents(documents, [0, 1], [[1, 0], [2, 2]]),
        "test": Split.from_documents([b"x", b"c", b"b"], [0, 1], [[2, 1], [0, 1]]),
    }
    report = verify(prepared(retrieval.CARD, splits, "sample"), retrieval.CARD)
    assert [(s.shared_inputs, s.shared_documents) for s in report.splits] == [(0, 0), (0, 3), (1, 2)]
    assert report.splits[0].bytes_mean == 1


def only_test(documents: list[bytes], labels: Iterable[int], items: Any = None) -> dict[str, Split]:
    return {"test": Split.from_documents(documents, list(labels), items)}


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        (only_test([*ONE_OF_EACH[:9], b"\x0f"], range(10)), "test has 1 bytes outside the vocabulary of 15"),
        (
            only_test([*ONE_OF_EACH[:9], bytes(2001)], range(10)),
            "test has a document of 2,001 bytes; full allows 2,000",
        ),
        (only_test([*ONE_OF_EACH[:9], b""], range(10)), "test has an empty document"),
        (only_test([b"\x09"] * 11, [*range(10), 10]), "test has a label 10; there are 10 classes"),
        (only_test([b"\x09\x01"] * 9, range(9)), "test has 9 examples, not 10"),
        (only_test([b"\x09\x01"] * 10, [*range(9), 8]), "test has no example of class 9"),
        (only_test([b"\x09"] * 10, range(10), [[0, 1]] * 10), "test holds pairs"),
        (only_test([], []), "test is empty"),
        ({"extra": GOOD["test"]}, "split extra does not belong here"),
    ],
)
def test_faults_are_named(splits: dict[str, Split], problem: str) -> None:
    report = broken(**splits)
    assert not report.ok
    assert problem in report.problems
    assert problem in " ".join(printed(report, 200).split())


def test_a_missing_split_is_named() -> None:
    report = verify(prepared(CARD, {"train": GOOD["train"], "validation": GOOD["validation"]}), CARD)
    assert report.problems == ("split test is missing",)


def test_the_hash_of_the_data_set_is_computed_again() -> None:
    other = Split.from_documents([d[:1] for d in reversed(ONE_OF_EACH)], range(10))
    data = dataclasses.replace(prepared(CARD, GOOD), splits={**GOOD, "test": other})
    (problem,) = verify(data, CARD).problems
    assert problem.startswith("the splits hash to ")
    assert problem.endswith(f"the data set says {data.sha256[:8]}")


def test_counts_of_a_sample_or_an_unknown_copy_are_notes() -> None:
    card = small_card(listops.CARD, train=96_000, validation=10, test=10)
    report = verify(prepared(card, GOOD, "sample, seed 1"), card)
    assert report.ok
    assert (report.variant, report.notes) == ("full", ("train has 20 examples; the full set has 96,000",))
    assert report.splits[0].expected is None
    report = verify(prepared(card, GOOD, "unrecognised copy 12345678"), card)
    assert report.ok
    assert report.variant == "copy"
    assert report.notes == (
        "a copy, not the task's own data: train has 20 examples, the task's has 96,000. Scores on it are reported as "
        "copy, not as full, and no mean over tasks counts them",
    )
    for strict in ("generated, seed 1", "official archive"):
        assert verify(prepared(card, GOOD, strict), card).problems == ("train has 20 examples, not 96,000",)


def nested(depth: int, length: int) -> bytes:
    """Return an expression of a length with operators that are nested to a depth."""
    return b"\x0a" * depth + b"\1" * (length - 2 * depth) + b"\x0e" * depth


@pytest.mark.parametrize(
    ("expression", "note"),
    [
        (nested(9, 501), None),
        (nested(9, 1999), None),
        (nested(9, 500), "1 of 31 expressions do not have 501 to 1,999 symbols"),
        (nested(9, 2000), "1 of 31 expressions do not have 501 to 1,999 symbols"),
        (nested(10, 1000), "operators are nested 10 deep, not at most 9"),
    ],
)
def test_another_generator_of_listops_is_noted(expression: bytes, note: str | None) -> None:
    usual = [nested(3, 600 + i) for i in range(10)]
    splits = {name: Split.from_documents(usual, range(10)) for name in ("train", "validation")}
    splits["test"] = Split.from_documents([*usual, expression], [*range(10), 0])
    for source, judged in (("unrecognised copy 12345678", False), ("generated, seed 1804", True), ("sample", True)):
        found = [
            line for line in verify(prepared(listops.CARD, splits, source), listops.CARD).notes if "another" in line
        ]
        expected = [] if note is None or judged else [f"{note}: these files are not LRA's, but from another generator"]
        assert found == expected, source


@pytest.mark.parametrize(
    ("images", "source", "noted"),
    [
        (199_999, "unrecognised copy 12345678", True),
        (200_000, "unrecognised copy 12345678", False),
        (199_999, "unrecognised copy 12345678, 1 empty images left out", False),
    ],
)
def test_a_copy_of_pathfinder_of_unknown_origin_is_noted(images: int, source: str, noted: bool) -> None:
    counts = {"train": images - 40_000, "validation": 20_000, "test": 20_000}
    splits = {name: Split.from_images(np.zeros((n, 1, 1), np.uint8), np.arange(n) % 2) for name, n in counts.items()}
    report = verify(prepared(pathfinder.CARD, splits, source), pathfinder.CARD)
    assert any("199,999 images, as many as a copy of unknown origin" in line for line in report.notes) == noted


def test_the_expressions_of_this_suite_have_the_form_of_lra(tmp_path: Path) -> None:
    splits = {part.split: part.examples for part in listops.build("full", SAMPLE, tmp_path)}
    assert listops.copy_notes(splits, "unrecognised copy 12345678") == []


def test_classes_must_be_balanced_where_the_card_says_so() -> None:
    card = dataclasses.replace(small_card(text.CARD, train=100, test=100), selection="last")
    for ones, fair in ((50, True), (74, True), (26, True), (76, False), (24, False)):  # a fair draw: 50, deviation 5
        test = Split.from_documents([b"a", b"b"], [0] * (100 - ones) + [1] * ones, [0] * 100)
        train = Split.from_documents([b"c"], [0, 1] * 50, [0] * 100)
        data = prepared(card, {"train": train, "test": test}, "official archive")
        problems = verify(data, card).problems
        assert (problems == ()) == fair
        if not fair:
            assert f"test has {ones} of 100 examples of class pos; equal shares are 50" in problems
        assert verify(prepared(card, {"train": train, "test": test}, "unrecognised copy 12345678"), card).ok
    assert not listops.CARD.balanced  # its answers are not


def test_an_overlap_of_validation_and_test_is_a_problem() -> None:
    report = broken(test=GOOD["validation"])
    assert report.problems == ("10 of 10 inputs of test are also in validation",)


def test_images_must_be_squares_of_one_size() -> None:
    pictures = Split.from_images(np.zeros((3, 16, 16)), [0, 1, 2])
    assert image_side(pictures) == 16
    for wrong in ([bytes(15)], [bytes(16), bytes(9)], []):
        with pytest.raises(DataError, match="are not squares of one size"):
            image_side(Split.from_documents(wrong, [0] * len(wrong)))
    splits = {"train": pictures, "validation": pictures, "test": Split.from_documents([bytes(15)], [0])}
    report = verify(prepared(image.CARD, splits, "unrecognised copy 12345678", "16"), image.CARD)
    assert report.problems == ("test: images of 15 bytes are not squares of one size",)


def test_the_image_sample_has_its_own_class_names() -> None:
    assert class_names(prepared(image.CARD, {}, "sample"), image.CARD)[0] == "disc"
    assert class_names(prepared(image.CARD, {}, "official archive"), image.CARD)[0] == "airplane"
    assert class_names(prepared(text.CARD, {}, "sample"), text.CARD) == ("neg", "pos")


def test_the_table_fits_into_80_columns() -> None:
    million = Split(
        data=np.zeros(16_384, np.uint8),
        offsets=np.array([0, 16_384]),
        labels=(np.arange(160_000) % 7).astype(np.uint8),
        items=np.zeros(160_000, np.int32),
    )
    lines = printed(
        verify(prepared(CARD, {"train": million, "validation": million, "test": million}), CARD)
    ).splitlines()
    heading, rows = lines[0], [line.split() for line in lines if line.startswith(("train ", "validation ", "test "))]
    assert heading.startswith("listops full  generated, seed 0")
    assert heading.rstrip().endswith("bad")
    assert [row[0] for row in rows] == ["train", "validation", "test"]
    assert rows[2][1:] == ["160,000", "0.0-14.3", "%", "16,384", "16,384", "16,384", "0", "160,000", million.sha256[:8]]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["listops", "retrieval", "image", "pathfinder"])  # Text: the real reviews below
def test_samples_have_no_problems(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path))
    card = load_task(task).CARD
    short = next(name for name in ("short", "cut", "16", "12") if name in card.variants)
    report = verify(prepare(task, short, "sample"), card)
    assert report.problems == ()


@pytest.mark.slow
def test_real_reviews(data_dir: Path) -> None:
    splits = {built.split: built.examples for built in text.build("full", "official", data_dir)}
    report = verify(prepared(text.CARD, splits, "official archive"), text.CARD)
    assert report.ok
    assert [split.class_counts for split in report.splits] == [(12_500, 12_500)] * 2
    assert report.splits[1].shared_inputs == 123  # as is known of IMDB
