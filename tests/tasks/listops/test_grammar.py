"""ListOps compared with a recursive evaluator, the exact distribution of lengths, and published figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.listops import grammar as listops
from tasks.listops.grammar import SYMBOLS

SHORT: dict[str, Any] = {"min_length": 15, "max_length": 256}
EXAMPLE = "[MAX 2 9 [MIN 4 7 ] 0 ]"
EXAMPLE_OFFICIAL = "( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )"


# ---- an independent ListOps: trees are digits or (operator, [trees])

trees = st.recursive(
    st.integers(0, 9),
    lambda tree: st.tuples(st.sampled_from(["MIN", "MAX", "MED", "SM"]), st.lists(tree, min_size=1, max_size=6)),
    max_leaves=40,
)


def value(tree: Any) -> int:
    if isinstance(tree, int):
        return tree
    children = [value(child) for child in tree[1]]
    by_name: dict[str, Any] = {"MIN": np.min, "MAX": np.max, "MED": np.median, "SM": lambda v: np.sum(v) % 10}
    return int(by_name[tree[0]](children))


def bracket(tree: Any) -> str:
    return str(tree) if isinstance(tree, int) else " ".join([f"[{tree[0]}", *map(bracket, tree[1]), "]"])


def pairs(tree: Any) -> str:
    """Return the official form: LRA builds ((((op, a), b), c), "]") and writes each pair as ( left right )."""
    if isinstance(tree, int):
        return str(tree)
    text = f"[{tree[0]}"
    for child in [*map(pairs, tree[1]), "]"]:
        text = f"( {text} {child} )"
    return text


def parse(symbols: Iterator[str]) -> Any:
    symbol = next(symbols)
    if not symbol.startswith("["):
        return None if symbol == "]" else int(symbol)
    return symbol[1:], list(iter(lambda: parse(symbols), None))


def depth(tree: Any) -> int:
    return 1 if isinstance(tree, int) else 1 + max(map(depth, tree[1]))


def arities(tree: Any) -> set[int]:
    return set() if isinstance(tree, int) else {len(tree[1])}.union(*map(arities, tree[1]))


def length_distribution(max_length: int, max_depth: int, max_args: int) -> np.ndarray:
    """Return the probability of each length by generating functions: P_d = 3/4 z + 1/4 mean_k z^2 P_{d+1}^k."""
    digit, operator = np.eye(2, max_length, 1)
    below = digit
    for _ in range(max_depth - 1):
        power, total = below, np.zeros(max_length)
        for _ in range(2, max_args + 1):
            power = np.convolve(power, below)[:max_length]
            total += np.convolve(operator, power)[:max_length]
        below = 0.75 * digit + 0.25 * total / (max_args - 1)
    return below


@pytest.fixture(scope="module")
def drawn() -> tuple[list[str], np.ndarray]:
    return listops.generate(16_000, seed=0)


# ---- expressions


@given(trees)
@settings(deadline=None)
def test_both_forms_have_the_value_of_the_tree(tree: Any) -> None:
    assert listops.evaluate(bracket(tree)) == listops.evaluate(pairs(tree)) == value(tree)


@given(trees)
@settings(deadline=None)
def test_encode_gives_a_byte_a_symbol_in_either_form_and_decode_inverts_it(tree: Any) -> None:
    document = listops.encode(bracket(tree))
    assert document == listops.encode(pairs(tree))
    assert len(document) == len(bracket(tree).split())
    assert listops.decode(document) == bracket(tree)


def test_the_vocabulary_is_constant() -> None:
    assert " ".join(SYMBOLS) == "0 1 2 3 4 5 6 7 8 9 [MIN [MAX [MED [SM ]"
    assert listops.encode(EXAMPLE) == bytes([11, 2, 9, 10, 4, 7, 14, 0, 14])


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        (EXAMPLE, 9),
        (EXAMPLE_OFFICIAL, 9),
        ("7", 7),
        ("[MED 1 2 ]", 1),
        ("[MED 8 1 9 4 ]", 6),
        ("[MED 3 1 2 ]", 2),
        ("[SM 9 9 9 ]", 7),
        ("  [SM\t9 1 ]\r\n", 0),
        ("[MIN 1 " * 5_000 + "0 " + "] " * 5_000, 0),
    ],
)
def test_values_by_hand(expression: str, answer: int) -> None:
    assert listops.evaluate(expression) == answer


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "empty"),
        ("( )", "empty"),
        ("[MAX 2 9", "character 1: '[MAX' is never closed"),
        ("[MAX 2 [SM 9 ]", "character 1: '[MAX' is never closed"),
        ("[MAX 2 [MIN ] 9 ]", "character 13: ']' closes an operator without arguments"),
        ("]", "character 1: ']' closes nothing"),
        ("[MAX 2 9 ] ]", "character 12: ']' comes after the end"),
        ("1 2", "character 3: '2' comes after the end"),
        ("[MAX 2 10 ]", "character 8: '10' is not one of"),
        ("[MAX 2 -1 ]", "character 8: '-1' is not one of"),
        ("[MAX 2 ٣ ]", "character 8: '٣' is not one of"),
        ("[FIRST 2 1 ]", "character 1: '[FIRST' is not one of"),
        ("[MAX 2 9]", "character 8: '9]' is not one of"),
        ("( ( ( [MAX 2 ) 9 ) ] ", ") is missing at the end"),
        ("( ( ( [MAX 2 ) 9 ) ] ) )", "character 24: ')' is one too many"),
        ("( ( [MAX 2 ) 9 ) ] )", r"character 5: '[MAX' is where the official form has ("),
        ("( ( ( [MAX 2 9 ) ) ] )", r"character 14: '9' is where the official form has )"),
    ],
)
def test_a_malformed_expression_is_refused_with_what_and_where(expression: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        listops.evaluate(expression)
    assert message in str(error.value)


def test_encode_and_decode_refuse_unknown_symbols() -> None:
    with pytest.raises(DataError, match="character 12: 'X' is not one of"):
        listops.encode("( [MAX 2 ) X")
    with pytest.raises(DataError, match="byte 15 is not a symbol"):
        listops.decode(bytes([1, 15]))


# ---- the generator


def test_generated_answers_are_the_values(drawn: tuple[list[str], np.ndarray]) -> None:
    expressions, answers = drawn
    assert answers.dtype == np.uint8
    for expression, answer in zip(expressions[:400], answers[:400], strict=True):
        assert value(parse(iter(expression.split()))) == answer
    assert [listops.evaluate(e) for e in expressions[:4_000]] == answers[:4_000].tolist()


def test_generated_trees_obey_the_grammar(drawn: tuple[list[str], np.ndarray]) -> None:
    parsed = [parse(iter(expression.split())) for expression in drawn[0][:400]]
    assert [bracket(tree) for tree in parsed] == drawn[0][:400]
    assert max(map(depth, parsed)) == 10
    assert set().union(*map(arities, parsed)) == set(range(2, 11))
    narrow, _ = listops.generate(500, seed=1, min_length=3, max_length=40, max_depth=4, max_args=3)
    parsed = [parse(iter(expression.split())) for expression in narrow]
    assert max(map(depth, parsed)) == 4
    assert set().union(*map(arities, parsed)) == {2, 3}


@pytest.mark.parametrize("limits", [(500, 2000, 10, 10), (15, 256, 10, 10), (60, 80, 6, 4)])
def test_lengths_follow_the_exact_distribution(limits: tuple[int, int, int, int]) -> None:
    low, high, max_depth, max_args = limits
    n = 8_000
    expressions, _ = listops.generate(
        n, seed=5, min_length=low, max_length=high, max_depth=max_depth, max_args=max_args
    )
    exact = length_distribution(high, max_depth, max_args)
    exact[: low + 1] = 0
    lengths = np.bincount([len(e.split()) for e in expressions], minlength=high)
    assert lengths[: low + 1].sum() == 0
    assert len(lengths) == high
    distance = np.abs(np.cumsum(lengths) / n - np.cumsum(exact) / exact.sum()).max()
    assert distance < 1.63 / np.sqrt(n)  # Kolmogorov and Smirnov, 1 %


def test_digits_and_operators_are_uniform(drawn: tuple[list[str], np.ndarray]) -> None:
    symbols = np.frombuffer(b"".join(map(listops.encode, drawn[0][:4_000])), np.uint8)
    counts = np.bincount(symbols, minlength=15)
    for group in (counts[:10], counts[10:14]):
        expected = group.sum() / len(group)
        assert np.abs(group - expected).max() < 4 * np.sqrt(expected)
    assert counts[14] == counts[10:14].sum()


def test_the_published_figures_are_reproduced(drawn: tuple[list[str], np.ndarray]) -> None:
    expressions, answers = drawn
    n = len(answers)
    assert np.mean([len(e.split()) for e in expressions]) == pytest.approx(1035, abs=12)
    share = np.bincount(answers, minlength=10) / n
    assert share[[0, 9]] == pytest.approx([0.17, 0.17], abs=0.01)
    assert (share[1:9] > 0.065).all()
    assert (share[1:9] < 0.097).all()
    root = np.array([listops.encode(e[:5].split()[0])[0] for e in expressions])
    table = np.zeros((len(SYMBOLS), 10), int)
    np.add.at(table, (root[: n // 2], answers[: n // 2]), 1)
    assert (table.argmax(1)[root[n // 2 :]] == answers[n // 2 :]).mean() == pytest.approx(0.362, abs=0.012)


def test_expressions_do_not_depend_on_workers_and_fewer_are_a_prefix_of_more() -> None:
    one, answers = listops.generate(5_000, seed=3, **SHORT)
    two, also = listops.generate(5_000, seed=3, workers=2, **SHORT)
    assert one == two
    assert answers.tolist() == also.tolist()
    fewer, less = listops.generate(700, seed=3, **SHORT)
    assert fewer == one[:700]
    assert less.tolist() == answers[:700].tolist()
    assert not set(listops.generate(700, seed=4, **SHORT)[0]) & set(one)


def test_the_streams_are_frozen() -> None:
    """If this fails, the data have changed: raise CARD.version."""
    windows: list[dict[str, Any]] = [{}, SHORT]
    drawn = ["\n".join(listops.generate(300, seed=1804, **window)[0]) for window in windows]
    assert [hashlib.sha256(text.encode()).hexdigest()[:16] for text in drawn] == [
        "f92c72139409855d",
        "79ff48f7034acc98",
    ]


def test_duplicates_are_drawn_again_and_an_exhausted_grammar_is_an_error() -> None:
    tiny: dict[str, Any] = {
        "min_length": 0,
        "max_length": 5,
        "max_depth": 2,
        "max_args": 2,
    }  # 10 digits, 4 * 100 operators
    expressions, _ = listops.generate(410, seed=0, **tiny)
    assert len(set(expressions)) == 410
    with pytest.raises(DataError, match="has only 410 different expressions, not 411"):
        listops.generate(411, seed=0, **tiny)


@pytest.mark.parametrize("wrong", [{"max_args": 1}, {"max_depth": 1}, {"min_length": 500, "max_length": 501}])
def test_an_empty_grammar_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="max_depth >= 2"):
        listops.generate(1, seed=0, **wrong)
