"""The language of ListOps: its symbols, its two written forms, the value of an expression, and the generator.

An expression is a digit, or an operator with arguments that are expressions themselves. LRA draws a tree from the
root at depth 1. A node is a digit with probability 3/4 (always at depth `max_depth`), else an operator MIN, MAX, MED
(median, rounded down) or SM (sum modulo 10) with 2 to `max_args` arguments. All other choices are uniform. Trees whose
length is outside an open interval are drawn again, and so are duplicates. A digit has length 1 and an operator 2
(its closing bracket counts), so the length is the number of symbols of the bracket form, and of bytes here.

    bracket form    [MAX 2 9 [MIN 4 7 ] 0 ]
    official form   ( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )

The official form writes the same tree as nested pairs. Its parentheses carry no information and are not symbols.

Source: github.com/google-research/long-range-arena, lra_benchmarks/data/listops.py; arXiv:1804.06028.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from functools import partial

import numpy as np

from tasks.core import Progress, chunk_rng, no_progress
from tasks.errors import DataError
from tasks.processes import map_in_order

MIN, MAX, MED, SM = "[MIN", "[MAX", "[MED", "[SM"
OPERATORS = (MIN, MAX, MED, SM)
SYMBOLS = (*"0123456789", *OPERATORS, "]")  # the byte of a symbol is its index here
DIGITS = {digit: int(digit) for digit in "0123456789"}
_BYTE = {symbol: byte for byte, symbol in enumerate(SYMBOLS)}
_FIRST_OPERATOR, _END = _BYTE[MIN], _BYTE["]"]
_PARENTHESES = frozenset("()")
_UNKNOWN = f"is not one of {' '.join(SYMBOLS)}"

_TREES = 8192  # of a chunk; about one in twelve has a valid length. Part of the random stream: never change it
_FEW = 4_000  # expressions; drawing fewer is faster in one process
_MAX_REPETITIONS = 100  # chunks without a new expression, after which the grammar has no others


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Limits of the expressions that are drawn: min_length < length < max_length (exclusive, as in the reference)."""

    min_length: int
    max_length: int
    max_depth: int
    max_args: int

    def __post_init__(self) -> None:
        if self.max_depth < 2 or not 2 <= self.max_args <= 64 or self.max_length - self.min_length < 2:
            raise DataError(f"{self}: max_depth >= 2, 2 <= max_args <= 64 and max_length - min_length >= 2 are needed")


# ---- expressions as strings


def encode(expression: str) -> bytes:
    """Return an expression in either form as one byte per symbol, without parentheses.

    The symbols are checked, the grammar is not.

    Raises:
      DataError: a word is not a symbol; the message names it and its position.
    """
    symbols = expression.split()
    try:
        return bytes([_BYTE[symbol] for symbol in symbols if symbol not in _PARENTHESES])
    except KeyError as error:
        raise _error(expression, symbols.index(error.args[0]), _UNKNOWN) from error


def decode(document: bytes) -> str:
    """Return the bracket form of an encoded expression: the inverse of `encode`.

    Raises:
      DataError: a byte does not encode a symbol.
    """
    try:
        return " ".join([SYMBOLS[byte] for byte in document])
    except IndexError as error:
        raise DataError(f"byte {max(document)} is not a symbol; the symbols of ListOps are 0 to {_END}") from error


def evaluate(expression: str) -> int:
    """Return the value, 0 to 9, of an expression in the bracket form or the official form.

    Raises:
      DataError: the expression is malformed; the message says how and at which character (the first is 1).
    """
    symbols = expression.split()
    args: list[int] = []  # of the innermost open operator
    outer: list[tuple[int, list[int]]] = []  # index of each open operator, and the arguments before it
    for index, symbol in enumerate(symbols):
        if not outer and args and symbol not in _PARENTHESES:
            raise _error(expression, index, "comes after the end of the expression")
        if symbol in DIGITS:
            args.append(DIGITS[symbol])
        elif symbol in OPERATORS:
            outer.append((index, args))
            args = []
        elif symbol == "]":
            if not args:
                raise _error(expression, index, "closes an operator without arguments" if outer else "closes nothing")
            opened, before = outer.pop()
            before.append(_value(symbols[opened], args))
            args = before
        elif symbol not in _PARENTHESES:
            raise _error(expression, index, _UNKNOWN)
    if outer:
        raise _error(expression, outer[-1][0], "is never closed")
    if not args:
        raise DataError("an empty expression")
    if not _PARENTHESES.isdisjoint(symbols):
        expected = official_form(" ".join([symbol for symbol in symbols if symbol not in _PARENTHESES])).split()
        for index, (symbol, right) in enumerate(itertools.zip_longest(symbols, expected)):
            if symbol != right:
                what = f"is where the official form has {right}" if right else "is one too many"
                raise _error(expression, index, what) if symbol else DataError(f"{right} is missing at the end")
    return args[0]


def _value(operator: str, args: list[int]) -> int:
    if operator == MIN:
        return min(args)
    if operator == MAX:
        return max(args)
    if operator == SM:
        return sum(args) % 10
    ordered = sorted(args)
    return (ordered[(len(args) - 1) // 2] + ordered[len(args) // 2]) // 2


def official_form(expression: str) -> str:
    """Return the official form of a well-formed bracket form.

    An operator, each of its arguments and its closing bracket are joined one after the other, each time as a pair.
    """
    written: list[str] = []
    outer: list[list[int]] = []  # index and number of arguments of each open operator
    for symbol in expression.split():
        if symbol in OPERATORS:
            outer.append([len(written), 0])
            written.append(symbol)
            continue
        if symbol == "]":
            index, args = outer.pop()
            written[index] = "( " * (args + 1) + written[index]
            symbol = "] )"
        if outer:
            outer[-1][1] += 1
            symbol += " )"
        written.append(symbol)
    return " ".join(written)


def _error(expression: str, index: int, what: str) -> DataError:
    symbol = list(re.finditer(r"\S+", expression))[index]
    return DataError(f"character {symbol.start() + 1}: {symbol.group()[:20]!r} {what}")


# ---- the generator


def generate(
    n: int,
    *,
    seed: int,
    min_length: int = 500,
    max_length: int = 2000,
    max_depth: int = 10,
    max_args: int = 10,
    workers: int = 1,
    progress: Progress = no_progress,
) -> tuple[list[str], np.ndarray]:
    """Draw n different expressions from the distribution of the reference.

    The result depends only on `seed` and the grammar, not on `workers`. That of a smaller n is a prefix of that of a
    larger n.

    Args:
      min_length, max_length: exclusive limits of the number of symbols

    Returns:
      the expressions in bracket form, and their values, uint8 [n]

    Raises:
      DataError: the limits are invalid, or allow fewer than n expressions.
    """
    documents, values = draw(n, Grammar(min_length, max_length, max_depth, max_args), seed, workers, progress)
    return [decode(document) for document in documents], values


def draw(n: int, grammar: Grammar, seed: int, workers: int, progress: Progress) -> tuple[list[bytes], np.ndarray]:
    """Draw as `generate`, but return the expressions as `encode` does."""
    drawn: dict[bytes, int] = {}  # values by expression, in the order of drawing
    repetitions = 0
    draw_chunk = partial(_chunk, grammar, seed)
    with contextlib.closing(map_in_order(draw_chunk, itertools.count(), 1 if n < _FEW else workers)) as chunks:
        while len(drawn) < n:
            before = len(drawn)
            for document, value in zip(*next(chunks), strict=True):
                drawn.setdefault(document, value)
            repetitions = 0 if len(drawn) > before else repetitions + 1
            if repetitions == _MAX_REPETITIONS:
                raise DataError(f"{grammar}: has only {len(drawn)} different expressions, not {n}; widen its limits")
            progress("drawing expressions", min(len(drawn), n), n)
    return list(drawn)[:n], np.fromiter(drawn.values(), np.uint8, len(drawn))[:n]


def _chunk(grammar: Grammar, seed: int, chunk: int) -> tuple[list[bytes], list[int]]:
    """Draw _TREES trees; return those of a valid length as expressions, with their values."""
    rng = chunk_rng(seed, chunk)
    arities, lengths = _shapes(rng, grammar)
    data, values = _fill(rng, arities, lengths)
    ends = np.cumsum(lengths).tolist()
    flat = data.tobytes()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)], values.tolist()


def _shapes(rng: np.random.RandomState, grammar: Grammar) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw the shapes of _TREES trees, level by level, and keep the T trees of a valid length.

    Returns:
      arities: for each level uint8 [nodes], the number of arguments of a node, 0 for a digit; siblings are adjacent
      lengths: int64 [T], in symbols
    """
    choices = grammar.max_args - 1  # of an arity; one draw from 4 * choices values also decides: digit or operator
    tree = np.arange(_TREES)
    lengths = np.zeros(_TREES, np.int64)
    levels = []
    for depth in range(1, grammar.max_depth + 1):
        if depth < grammar.max_depth:
            draw = rng.randint(0, 4 * choices, len(tree), dtype=np.uint8)
            arity = np.where(draw < choices, draw + np.uint8(2), np.uint8(0))
        else:
            arity = np.zeros(len(tree), np.uint8)
        levels.append((tree, arity))
        lengths += np.bincount(tree, 1 + (arity > 0), _TREES).astype(np.int64)
        tree = np.repeat(tree, np.where(lengths[tree] < grammar.max_length, arity, 0))  # too long: grows no further
    kept = (grammar.min_length < lengths) & (lengths < grammar.max_length)
    return [arity[kept[tree]] for tree, arity in levels], lengths[kept]


def _fill(rng: np.random.RandomState, arities: list[np.ndarray], lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the digits and operators of T trees.

    Returns:
      symbols uint8 [sum of lengths], and the values of the trees, int64 [T]
    """
    levels = []
    size = value = np.zeros(0, np.int64)  # of the level below
    for arity in reversed(arities):
        inner = arity > 0
        symbol = np.where(
            inner,
            _FIRST_OPERATOR + rng.randint(0, 4, len(arity), np.int64),  # the default type is the platform's
            rng.randint(0, 10, len(arity), np.int64),
        )
        k = arity[inner].astype(np.int64)
        first = np.cumsum(k) - k  # index of each operator's first argument in the level below
        below, size = size, np.ones(len(arity), np.int64)
        args, value = value, symbol.copy()
        if len(k):
            size[inner] = 2 + np.add.reduceat(below, first)
            value[inner] = _apply(symbol[inner] - _FIRST_OPERATOR, args, first, k)
        levels.append((symbol, size, inner, below, first, k))
    data = np.empty(lengths.sum(), np.uint8)
    start = np.cumsum(lengths) - lengths
    for symbol, size, inner, below, first, k in reversed(levels):
        data[start] = symbol
        data[start[inner] + size[inner] - 1] = _END
        before = np.cumsum(below) - below  # total size of the earlier nodes of the level below
        start = np.repeat(start[inner] + 1 - before[first], k) + before
    return data, value


def _apply(operator: np.ndarray, args: np.ndarray, first: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the values, int64 [n], of operators, 0 to 3 for MIN, MAX, MED, SM, on args[first : first + k]."""
    ordered = np.sort(np.repeat(np.arange(len(k)) * 10, k) + args) % 10  # sorts the arguments of each operator
    low, high = ordered[first], ordered[first + k - 1]
    median = (ordered[first + (k - 1) // 2] + ordered[first + k // 2]) // 2
    return np.choose(operator, (low, high, median, np.add.reduceat(args, first) % 10))
