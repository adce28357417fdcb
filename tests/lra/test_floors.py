from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lra import floors
from lra.leaderboard import board
from lra.record import find, read, unpack
from tasks import listops
from tasks.core import Prepared, Split


def data(train: Split, test: Split, task: str = "listops") -> Prepared:
    return Prepared(task, "short", 1, "generated, seed 1806", "628d26d6" + 56 * "0", {"train": train, "test": test})


def split(documents: list[bytes], labels: list[int]) -> Split:
    return Split.from_documents(documents, labels)


@pytest.fixture(scope="module")
def drawn() -> tuple[list[str], list[int]]:
    expressions, answers = listops.generate(900, seed=11)
    return expressions, answers.tolist()


@pytest.fixture(scope="module")
def prepared(drawn: tuple[list[str], list[int]]) -> Prepared:
    documents, answers = [listops.encode(e) for e in drawn[0]], drawn[1]
    return data(split(documents[:600], answers[:600]), split(documents[600:], answers[600:]))


def test_floors_equal_a_count_over_expressions(drawn: tuple[list[str], list[int]], prepared: Prepared) -> None:
    """The reference counts whole expressions in Python, and knows no bytes."""
    expressions, answers = drawn
    table: dict[str, Counter[int]] = {}
    for e, a in zip(expressions[:600], answers[:600], strict=True):
        table.setdefault(e.split()[0], Counter())[a] += 1
    best = {root: min(a for a in c if c[a] == max(c.values())) for root, c in table.items()}
    assert set(best) == {"[MIN", "[MAX", "[MED", "[SM"}
    counts = Counter(answers[:600])
    common = min(a for a in counts if counts[a] == max(counts.values()))

    majority, root = floors.floors(prepared, listops.CARD)
    assert (majority.name, root.name) == ("majority class", "root operator")
    assert majority.predictions.tolist() == [common] * 300
    assert root.predictions.tolist() == [best[e.split()[0]] for e in expressions[600:]]
    right = sum(best[e.split()[0]] == a for e, a in zip(expressions[600:], answers[600:], strict=True))
    assert root.accuracy == pytest.approx(right / 300)
    assert root.accuracy > majority.accuracy + 0.1  # a shortcut that a score must beat


def test_fitted_on_train_alone() -> None:
    train = split([b"a1", b"a2", b"a3", b"b1"], [3, 3, 1, 2])
    test = split([b"a", b"b", b"z", b"b"], [1, 2, 3, 0])
    assert floors.majority_class(train, test, 10).tolist() == [3, 3, 3, 3]
    assert floors.root_operator(train, test, 10).tolist() == [3, 2, 3, 2]  # z is new: the majority class


def test_examples_are_found_through_their_items() -> None:
    """Documents need not lie in the order of the examples."""
    train = split([b"a", b"b"], [0, 1])
    documents = split([b"a-", b"b-"], [0, 0])
    test = Split(documents.data, documents.offsets, np.array([1, 0, 1], np.uint8), np.array([1, 0, 1], np.int32))
    assert floors.root_operator(train, test, 2).tolist() == [1, 0, 1]


def test_other_tasks_have_the_majority_class_alone() -> None:
    from tasks import image

    pictures = Split.from_images(np.zeros((4, 2, 2), np.uint8), [1, 1, 2, 9])
    (floor,) = floors.floors(data(pictures, pictures, "image"), image.CARD)
    assert (floor.name, floor.accuracy) == ("majority class", 0.5)


def test_records_are_written_once_and_found(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    paths = floors.write_floors(prepared, listops.CARD)
    before = [p.read_bytes() for p in paths]
    assert floors.write_floors(prepared, listops.CARD) == paths
    assert [p.read_bytes() for p in paths] == before
    assert {f.path for f in find([(tmp_path, "yours")])} == set(paths)

    record = read(paths[1])
    assert (record["kind"], record["mixer"]["label"]) == ("floor", "root operator")
    assert record["column"]["protocol"] is None
    assert record["test"]["count"] == 300
    answers = prepared.splits["test"].labels
    assert (unpack(record["test"]["predictions"]) == answers).sum() == record["test"]["correct"]
    assert np.array(record["test"]["confusion"]).sum(1).tolist() == np.bincount(answers, minlength=10).tolist()
    assert read(paths[0])["test"]["at_chance"] is True
    assert record["test"]["at_chance"] is False
    assert board(find([(tmp_path, "yours")])).tables == ()  # floors alone are no board


def test_floors_of_other_data_have_other_names(prepared: Prepared) -> None:
    other = Prepared("listops", "short", 1, prepared.source, "f" * 64, prepared.splits)
    names = [r["id"] for p in (prepared, other) for r in floors.floor_records(p, listops.CARD)]
    assert len(set(names)) == 4
