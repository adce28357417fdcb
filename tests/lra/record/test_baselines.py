from __future__ import annotations

import ast
import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lra.config import TASKS
from lra.leaderboard.build import board
from lra.paths import results_directory
from lra.record import baseline_models, baselines
from lra.record.files import find, read, unpack, write
from lra.record.schema import BaselineRecord
from lra.record.validate import validate
from tasks import listops, load_task
from tasks.core import Prepared, Split
from tests.lra.leaderboard.test_leaderboard import run


def data(train: Split, test: Split, task: str = "listops") -> Prepared:
    return Prepared(task, "short", 1, "generated, seed 1806", "628d26d6" + 56 * "0", {"train": train, "test": test})


def split(documents: list[bytes], labels: list[int]) -> Split:
    return Split.from_documents(documents, labels)


def half(whole: Split, part: slice) -> Split:
    return dataclasses.replace(whole, labels=whole.labels[part], items=whole.items[part])


@pytest.fixture(scope="module")
def drawn() -> tuple[list[str], list[int]]:
    expressions, answers = listops.generate(900, seed=11)
    return expressions, answers.tolist()


@pytest.fixture(scope="module")
def prepared(drawn: tuple[list[str], list[int]]) -> Prepared:
    documents, answers = [listops.encode(e) for e in drawn[0]], drawn[1]
    return data(split(documents[:600], answers[:600]), split(documents[600:], answers[600:]))


def root(expression: str) -> tuple[object, ...]:
    return (expression.split()[0],)


def root_and_digits(expression: str) -> tuple[object, ...]:
    """Read with the standard library's own parser: the root's digits are the numbers of the outermost list."""
    nested = re.sub(r"\[(\w+)", r"['\1',", expression).replace(" ", ",").replace(",,", ",").replace(",]", "]")
    digits = [x for x in ast.literal_eval(nested) if isinstance(x, int)]
    return expression.split()[0], min(digits, default=None), max(digits, default=None)


def most_frequent(keys: list[tuple[object, ...]], answers: list[int]) -> dict[tuple[object, ...], int]:
    table: dict[tuple[object, ...], Counter[int]] = {}
    for key, answer in zip(keys, answers, strict=True):
        table.setdefault(key, Counter())[answer] += 1
    return {key: min(a for a in c if c[a] == max(c.values())) for key, c in table.items()}


@pytest.mark.slow
def test_baselines_equal_a_count_over_expressions(drawn: tuple[list[str], list[int]], prepared: Prepared) -> None:
    """The reference counts whole expressions in Python, and knows no bytes."""
    (expressions, answers), right = drawn, {}
    assert {e.split()[0] for e in expressions} == {"[MIN", "[MAX", "[MED", "[SM"}
    common = most_frequent([()] * 600, answers[:600])[()]
    of_root = most_frequent([root(e) for e in expressions[:600]], answers[:600])
    of_digits = most_frequent([root_and_digits(e) for e in expressions[:600]], answers[:600])
    want = {
        "majority class": [common] * 300,
        "root operator": [of_root[root(e)] for e in expressions[600:]],
        "root operator, digits": [of_digits.get(root_and_digits(e), of_root[root(e)]) for e in expressions[600:]],
    }
    rules = baseline_models.rules(listops.CARD)
    assert list(rules) == list(want)
    for name, rule in rules.items():
        got = rule(prepared.splits["train"], prepared.splits["test"], 10)
        assert got.tolist() == want[name], name
        right[name] = (got == answers[600:]).mean()
    assert right["majority class"] + 0.1 < right["root operator"]  # shortcuts that a score must beat


def test_fitted_on_train_alone() -> None:
    train = split([b"a1", b"a2", b"a3", b"b1"], [3, 3, 1, 2])
    test = split([b"a", b"b", b"z", b"b"], [1, 2, 3, 0])
    assert baseline_models.majority_class(train, test, 10).tolist() == [3, 3, 3, 3]
    assert baseline_models.root_operator(train, test, 10).tolist() == [3, 2, 3, 2]  # z is new: the majority class


def test_ngrams_tell_texts_apart_that_have_the_same_bytes() -> None:
    texts = [bytes(np.random.RandomState(i).permutation(list(word * 20))) for i in range(40) for word in (b"abcd",)]
    words = [b" ".join([(b"abcd", b"dcba")[i % 2]] * (5 + i)) + text for i, text in enumerate(texts)]
    train, test = split(words[:30], [i % 2 for i in range(30)]), split(words[30:], [0] * 10)
    assert baseline_models.byte_ngrams(train, test, 2).tolist() == [0, 1] * 5


def test_ngrams_of_a_pair_see_what_is_shared() -> None:
    """Each document is in as many pairs of one class as of the other: alone it says nothing."""
    draw = np.random.RandomState(0)
    vocabulary = [draw.randint(97, 123, 4).astype(np.uint8).tobytes() for _ in range(40)]
    topics = [draw.choice(40, 8, replace=False) for _ in range(80)]
    documents = [b" ".join(vocabulary[w] for w in draw.permutation(topic)) for topic in topics for _ in range(2)]
    items = [(2 * i, 2 * ((i + k) % 80) + 1) for i in range(80) for k in (0, 3)]
    pairs = Split.from_documents(documents, [1, 0] * 80, items)
    train, test = half(pairs, slice(80)), half(pairs, slice(80, None))
    assert (baseline_models.byte_ngrams(train, test, 2) == test.labels).mean() > 0.9


def test_ngrams_are_of_bytes() -> None:
    """Nothing is folded: no white space, no case, and no bytes that some encoding takes for one of them."""
    text = b"A\x85\xa0 \n"
    places = [(i, j) for i in range(5) for j in range(i + 1, 6) if j - i <= 4]
    assert sorted(baseline_models.ngrams(text)) == sorted(text[i:j] for i, j in places)
    assert baseline_models.ngrams(b"aa") == [b"a", b"a", b"aa"]
    for one, other in ((b" ", b"\n"), (b"  ", b" "), (b"\x85", b"\xa0"), (b"\xa0", b" "), (b"a", b"A")):
        texts = [bytes([65 + i]) + [one, other][i % 2] * 3 + bytes([97 + i]) for i in range(24)]
        train, test = split(texts[:16], [i % 2 for i in range(16)]), split(texts[16:], [0] * 8)
        assert baseline_models.byte_ngrams(train, test, 2).tolist() == [0, 1] * 4, (one, other)


def test_weights_of_ngrams_are_fitted_on_train_alone() -> None:
    """What is predicted of an example does not depend on which others are tested with it."""
    draw = np.random.RandomState(0)
    documents = [draw.choice(list(b"abcdefgh"), 30).astype(np.uint8).tobytes() for _ in range(300)]
    labels = draw.randint(0, 2, 300).tolist()  # noise: many examples are near the decision boundary
    train, few = split(documents[:100], labels[:100]), split(documents[100:], labels[100:])
    many = split([*documents[100:], *(b"abab" * 8 for _ in range(2_000))], [*labels[100:], *[0] * 2_000])
    alone = baseline_models.byte_ngrams(train, few, 2)
    assert 50 < alone.sum() < 150
    np.testing.assert_array_equal(baseline_models.byte_ngrams(train, many, 2)[:200], alone)


def test_pixels_find_a_place_and_their_images_through_items() -> None:
    draw = np.random.RandomState(0)
    images, labels = draw.randint(0, 256, (300, 4, 4)).astype(np.uint8), draw.randint(0, 3, 300)
    images[np.arange(300), 0, labels] = 255
    images[np.arange(300), 1, labels] = 250
    order = draw.permutation(300)
    there = Split.from_images(images[order], labels)
    shuffled = dataclasses.replace(there, items=np.argsort(order).astype(np.int32))
    train, test = half(shuffled, slice(80)), half(shuffled, slice(80, None))
    assert (baseline_models.pixels(train, test, 3) == test.labels).mean() > 0.7


def test_every_task_has_a_baseline_above_the_majority_class() -> None:
    assert all(len(baseline_models.rules(load_task(task).CARD)) > 1 for task in TASKS)


def test_examples_are_found_through_their_items() -> None:
    """Documents need not lie in the order of the examples."""
    train = split([b"a", b"b"], [0, 1])
    documents = split([b"a-", b"b-"], [0, 0])
    test = Split(documents.data, documents.offsets, np.array([1, 0, 1], np.uint8), np.array([1, 0, 1], np.int32))
    assert baseline_models.root_operator(train, test, 2).tolist() == [1, 0, 1]


def test_records_are_written_once_and_found(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    paths = baselines.write_baselines(prepared, listops.CARD)
    before = [p.read_bytes() for p in paths]
    assert len(paths) == 3
    monkeypatch.setattr(baselines, "baseline_record", None)  # what is there is not computed again
    assert baselines.write_baselines(prepared, listops.CARD) == paths
    assert [p.read_bytes() for p in paths] == before
    assert {f.path for f in find([(tmp_path, "yours")])} == set(paths)

    made = read(paths[1])
    assert (made.kind, made.mixer.label) == ("floor", "root operator")
    assert made.column.protocol is None
    assert made.test.count == 300
    answers = prepared.splits["test"].labels
    assert (unpack(made.test.predictions, len(answers)) == answers).sum() == made.test.correct
    assert np.array(made.test.confusion).sum(1).tolist() == np.bincount(answers, minlength=10).tolist()
    assert read(paths[0]).test.at_chance is True
    assert made.test.at_chance is False
    assert board(find([(tmp_path, "yours")])).tables == ()  # trivial baselines alone are no board
    largest = max(Counter(answers.tolist()).values()) / 300
    assert made.chance == read(paths[0]).chance == largest
    assert made.majority_accuracy == read(paths[0]).test.accuracy


def test_chance_of_a_baseline_is_the_largest_class_of_test() -> None:
    """A rule that is right for 60 of 100 is at chance if 70 are of one class, rare as that class is in train."""
    low, high = listops.encode("[MIN 1 2 ]"), listops.encode("[MAX 1 2 ]")
    train = split([high] * 6 + [low] * 4, [0] * 6 + [1] * 4)
    test = split([low] * 90 + [high] * 10, [1] * 60 + [0] * 30 + [1] * 10)
    made = baselines.baseline_record(data(train, test), listops.CARD, "root operator")
    assert (made.test.correct, made.chance, made.majority_accuracy) == (60, 0.7, 0.3)
    assert made.test.at_chance is True


def test_committed_baselines_are_not_computed_again(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_RESULTS", str(tmp_path))
    made = baselines.baseline_record(prepared, listops.CARD, "root operator")
    committed = write(tmp_path / "floors", made)
    assert baselines.write_baselines(prepared, listops.CARD)[1] == committed
    assert not (tmp_path / "runs" / made.id).exists()


def test_baselines_of_other_data_have_other_names(prepared: Prepared) -> None:
    other = Prepared("listops", "short", 1, prepared.source, "f" * 64, prepared.splits)
    rules = baseline_models.rules(listops.CARD)
    names = [baselines.baseline_record(p, listops.CARD, name).id for p in (prepared, other) for name in rules]
    assert len(set(names)) == 6


BOTH = {name: split([b"good", b"bad"] * 4, [1, 0] * 4) for name in ("train", "test")}
TEXT = Prepared("text", "cut", 1, "sample", "ab" * 32, BOTH)


def test_baselines_of_an_older_rule_are_kept_but_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_task("text").CARD
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_RESULTS", str(tmp_path))
    monkeypatch.setenv("LRA_RESULTS", str(tmp_path))
    new = baselines.baseline_record(TEXT, card, "byte n-grams")
    assert (new.mixer.version, new.id) == (2, "text-cut-byte_n_grams_2-v1-ababab")
    old = new.as_json() | {"id": "text-cut-byte_n_grams-v1-ababab"}
    del old["mixer"]["version"]
    old["test"]["accuracy"] = 0.125
    write(tmp_path / "floors", BaselineRecord.model_validate(old))
    paths = baselines.write_baselines(TEXT, card)
    assert [p.name for p in paths] == ["text-cut-majority_class-v1-ababab.json", f"{new.id}.json"]
    of_run = run(0.5, task="text", data="ab" * 32)
    shown = board([of_run, *find([(tmp_path / "floors", "committed")])]).tables[0].baselines
    assert "byte n-grams" not in {f.name for f in shown}
    shown = (
        board([of_run, *find([(tmp_path / "floors", "committed"), (tmp_path / "runs", "yours")])]).tables[0].baselines
    )
    assert {f.name: f.accuracies for f in shown}["byte n-grams"] == (new.test.accuracy,)


def test_committed_baselines_of_older_rules_are_told_to_be_retired() -> None:
    [path] = (results_directory() / "floors").glob("text-full-byte_n_grams-v1-*.json")
    (report,) = validate([path])
    assert report.problems == ()
    assert "retired: trivial baseline byte n-grams version 1, today's is 2" in report.unverified
