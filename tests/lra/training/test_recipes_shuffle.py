"""The recipe `shuffle`: its permutation equals a recursive reference, keeps the value, and is uniform."""

from __future__ import annotations

from collections import Counter

import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from lra import config as cfg
from lra.api import configure
from lra.errors import ConfigError
from lra.training.recipes.shuffle import shuffle
from models.dropout import row_dropout_seeds
from tasks.listops import decode, encode, evaluate, generate
from tasks.listops.grammar import OPERATORS, SYMBOLS

RECIPE = cfg.recipes("listops")["shuffle"]


def padded(expressions: list[str], length: int) -> np.ndarray:
    rows = [np.frombuffer(encode(e), np.uint8).astype(np.int32) + 1 for e in expressions]
    return np.stack([np.pad(row, (0, length - len(row))) for row in rows])


def text(ids: np.ndarray) -> str:
    return decode(bytes((ids[ids > 0] - 1).astype(np.uint8)))


def sorted_by(priorities: np.ndarray, symbols: list[str]) -> str:
    """Parse recursively, sort the operands of each operator by the priority of their first symbol, and write again."""

    def node(start: int) -> tuple[str, int]:
        if symbols[start] not in OPERATORS:
            return symbols[start], start + 1
        operands, place = [], start + 1
        while symbols[place] != "]":
            written, after = node(place)
            operands.append((priorities[place], written))
            place = after
        return " ".join([symbols[start], *(written for _, written in sorted(operands)), "]"]), place + 1

    return node(0)[0]


def test_the_recipe_names_the_symbols_of_the_language() -> None:
    assert SYMBOLS[RECIPE.first_operator : RECIPE.end] == OPERATORS
    assert SYMBOLS[RECIPE.end] == "]"


@pytest.mark.parametrize(("low", "high", "length"), [(4, 60, 60), (500, 2000, 2000)])
def test_shuffled_expressions_equal_a_recursive_reference(low: int, high: int, length: int) -> None:
    expressions, values = generate(24, seed=5, min_length=low, max_length=high, max_depth=10, max_args=10)
    keys = jax.random.split(jax.random.key(3), len(expressions))
    ids = padded(expressions, length)
    shuffled = np.asarray(shuffle(ids, keys, RECIPE))
    priorities = np.asarray(row_dropout_seeds(keys, 1, length)[0][:, 0])
    for row, expression, value, order in zip(shuffled, expressions, values, priorities, strict=True):
        assert text(row) == sorted_by(order, expression.split())
        assert evaluate(text(row)) == value
    assert (shuffled != ids).any(1).mean() > 0.9
    longer = np.asarray(shuffle(padded(expressions, length + 7), keys, RECIPE))
    np.testing.assert_array_equal(longer[:, :length], shuffled)
    assert not longer[:, length:].any()


def test_every_order_of_the_operands_is_equally_likely() -> None:
    draws = 6_000
    ids = np.tile(padded(["[MAX 1 [MIN 2 3 ] 4 ]"], 9), (draws, 1))
    shuffled = np.asarray(shuffle(ids, jax.random.split(jax.random.key(0), draws), RECIPE))
    counts = Counter(text(row) for row in shuffled)
    assert len(counts) == 12
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_expressions_that_are_cut_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs complete expressions; give --max-len 2000"):
        configure("listops", "cosformer", protocol="laptop+shuffle", overrides={"max_len": 1_000})
