"""Any generated or written expression has the value of an independent evaluator, which rewrites text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks import listops
from tasks.core import OFFICIAL, SPLITS, Split
from tasks.errors import DataError
from tasks.listops.grammar import SYMBOLS, Grammar, decode, draw, encode, evaluate, generate, official_form

T = TypeVar("T")
INNERMOST = re.compile(r"\[(MIN|MAX|MED|SM)((?: [0-9])+) \]")


def rewritten(expression: str) -> int | None:
    """Return the value by replacing innermost operators until nothing changes; None if it is not an expression."""

    def worth(match: re.Match[str]) -> str:
        args = [int(digit) for digit in match[2].split()]
        by_name = {"MIN": np.min, "MAX": np.max, "MED": np.median, "SM": lambda a: np.sum(a) % 10}
        return str(int(by_name[match[1]](args)))

    before, text = "", " ".join(expression.split())
    while text != before:
        before, text = text, INNERMOST.sub(worth, text)
    return int(text) if re.fullmatch("[0-9]", text) else None


def tried(call: Callable[[], T]) -> T | DataError:
    """Return the result of a function, or the DataError that it raises."""
    try:
        return call()
    except DataError as error:
        return error


def depth(expression: str) -> int:
    level, deepest = 1, 1
    for symbol in expression.split():
        level += symbol.startswith("[") - (symbol == "]")
        deepest = max(deepest, level)
    return deepest


def arguments(expression: str) -> set[int]:
    """Return the numbers of arguments of all operators."""
    arities: set[int] = set()
    before, text = "", expression
    while text != before:
        arities |= {len(match[2].split()) for match in INNERMOST.finditer(text)}
        before, text = text, INNERMOST.sub("0", text)
    return arities


@st.composite
def grammars(draw: st.DrawFn) -> Grammar:
    low = draw(st.integers(0, 60))
    return Grammar(low, low + draw(st.integers(20, 200)), draw(st.integers(3, 8)), draw(st.integers(2, 8)))


@settings(max_examples=25)
@given(grammars(), st.integers(0, 2**32 - 1))
def test_generated_expressions_follow_the_grammar_and_have_the_value_of_their_label(
    grammar: Grammar, seed: int
) -> None:
    drawn = tried(lambda: draw(20, grammar, seed, 1, lambda *_: None))
    if isinstance(drawn, DataError):
        assert "different expressions, not 20" in str(drawn)
        return
    documents, values = drawn
    assert len(set(documents)) == len(documents) == len(values) == 20
    for document, value in zip(documents, values, strict=True):
        expression = decode(document)
        assert encode(expression) == document
        assert grammar.min_length < len(document) == len(expression.split()) < grammar.max_length
        assert max(document) < len(SYMBOLS) < listops.CARD.vocab_size
        assert depth(expression) <= grammar.max_depth
        assert arguments(expression) <= set(range(2, grammar.max_args + 1))
        assert rewritten(expression) == evaluate(expression) == value
        written = official_form(expression)
        assert encode(written) == document
        assert evaluate(written) == value


# Parts of expressions, and similar texts.
PIECES = st.sampled_from([*SYMBOLS, "(", ")", "[MIN", "]", "]", "10", "[MAXX", "-1", "٣", "\x1c", "[ MIN", "[min"])
TEXTS = st.lists(PIECES, max_size=12).map(" ".join) | st.text(max_size=20)


@given(TEXTS)
@example("[MIN 1 ] ( )")
@example("( 1 )")
@example("1 ( ( ( )")
def test_any_text_has_a_value_or_is_refused(text: str) -> None:
    value = tried(lambda: evaluate(text))
    if isinstance(value, DataError):
        assert str(value).startswith(("character ", "an empty expression", ") is missing", "( is missing"))
        if "(" not in text and ")" not in text:
            assert rewritten(text) is None
        return
    bracket = " ".join(symbol for symbol in text.split() if symbol not in ("(", ")"))
    assert rewritten(bracket) == value
    assert decode(encode(text)) == bracket
    if bracket.split() != text.split():
        assert text.split() == official_form(bracket).split()


@given(st.integers(0, 2**31 - 1), st.data())
@settings(max_examples=60)
def test_one_symbol_more_less_or_other_is_seen(seed: int, data: st.DataObject) -> None:
    """After an error in an expression, it is refused or is another expression with its own value."""
    (expression,), _ = generate(1, seed=seed % 50, min_length=3, max_length=60, max_depth=5, max_args=5)
    symbols = (official_form(expression) if data.draw(st.booleans()) else expression).split()
    place = data.draw(st.integers(0, len(symbols) - 1))
    slip = data.draw(st.sampled_from([[], [symbols[place]] * 2, [data.draw(PIECES)]]))
    changed = " ".join([*symbols[:place], *slip, *symbols[place + 1 :]])
    bracket = " ".join(s for s in changed.split() if s not in "()")
    value = tried(lambda: evaluate(changed))
    if isinstance(value, DataError):
        assert changed != bracket or rewritten(bracket) is None
    else:
        assert value == rewritten(bracket)


@given(st.binary(max_size=40))
def test_any_bytes_are_symbols_or_refused(document: bytes) -> None:
    if max(document, default=0) < len(SYMBOLS):
        assert encode(decode(document)) == document
    else:
        with pytest.raises(DataError, match=rf"byte {max(document)} is not a symbol"):
            decode(document)


HEADER = b"Source\tTarget\r\n"
WHOLE = st.sampled_from(["7", "[SM 9 9 ]", "( ( ( [MAX 2 ) 9 ) ] )", "[MED 1 [MIN 4 7 ] ]"])
ROWS = st.lists(st.tuples(WHOLE | TEXTS, st.sampled_from([*"2789", "", "10", "x"])), max_size=2)


@settings(max_examples=60)
@given(st.binary(max_size=60) | ROWS.map(lambda rows: HEADER + "\r\n".join(map("\t".join, rows)).encode()))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    place = tmp_path_factory.getbasetemp()
    for name in ("basic_val.tsv", "basic_test.tsv"):
        (place / name).write_bytes(HEADER)
    (place / "basic_train.tsv").write_bytes(content)
    built = tried(lambda: next(iter(listops.build("full", OFFICIAL, place))))
    if isinstance(built, DataError):
        assert "basic_train.tsv, row" in str(built)
        return
    train = built.examples
    for d, label in zip(train.items, train.labels, strict=True):
        assert rewritten(decode(train.document(d))) == label


@settings(max_examples=20)
@given(st.lists(st.integers(0, 400), min_size=3, max_size=3))
def test_written_official_files_are_read_back(tmp_path_factory: pytest.TempPathFactory, seeds: list[int]) -> None:
    place: Path = tmp_path_factory.getbasetemp()
    splits = {}
    for split, seed in zip(SPLITS, seeds, strict=True):
        expressions, answers = generate(2, seed=seed % 7, min_length=3, max_length=60, max_depth=5, max_args=5)
        splits[split] = Split.from_documents([encode(e) for e in expressions], answers)
    listops.write_official(splits, place)
    for built in listops.build("full", OFFICIAL, place):
        assert built.examples.sha256 == splits[built.split].sha256
