"""The hash of a file's syntax: what changes it, what does not, and that no version of Python does."""

from __future__ import annotations

import hashlib

import pytest

from lra.provenance.syntax import syntax

FILE = b'''"""A module."""

import math
from . import core
from models.core import Dims, fold as layered


@decorated(rate=1)
class Mixer:
    """A class."""

    size: int = 3

    def __call__(self, x, *, scale=2.0, name="a"):
        """A method."""
        weights = f"{x!r:>{self.size}} and {scale}"
        if x is None or x < -1:
            return {**x, "key": (1, 2)}
        return x * scale + self.size  # a comment
'''

SAME = {
    "comment": (b"  # a comment", b"  # another one\n        # and one more"),
    "docstring of the module": (b'"""A module."""', b'"""Another module, explained\nat length."""'),
    "no docstring": (b'        """A method."""\n', b""),
    "a text that does nothing": (b"size: int = 3", b'size: int = 3\n    """Of a window."""'),
    "quotes": (b'name="a"', b"name='a'"),
    "a text in two parts": (b'"key"', b'"k" "ey"'),
    "parentheses and lines": (b"x is None or x < -1", b"(x is None\n            or (x < -1))"),
    "a number written otherwise": (b"scale=2.0", b"scale=2.00"),
    "a trailing comma": (b"(1, 2)", b"(1, 2,)"),
}
OTHER = {
    "a constant": (b"size: int = 3", b"size: int = 4"),
    "the type of a constant": (b"size: int = 3", b"size: int = 3.0"),
    "a truth": (b"size: int = 3", b"size: int = True"),
    "an operator": (b"x * scale", b"x / scale"),
    "a comparison": (b"x < -1", b"x <= -1"),
    "a sign": (b"x < -1", b"x < 1"),
    "a default": (b"scale=2.0", b"scale=2.5"),
    "no default": (b"scale=2.0", b"scale"),
    "a text": (b'name="a"', b'name="b"'),
    "a text in an f-string": (b" and {scale}", b" or {scale}"),
    "a format": (b"!r:>", b"!r:<"),
    "a decorator": (b"@decorated(rate=1)\n", b""),
    "the decorator's argument": (b"rate=1", b"rate=2"),
    "an annotation": (b"size: int", b"size: float"),
    "a name": (b"fold as layered", b"fold as layers"),
    "an import": (b"import math\n", b""),
    "its level": (b"from . import", b"from .. import"),
    "the order of statements": (b"import math\nfrom . import core\n", b"from . import core\nimport math\n"),
    "a key": (b"{**x, ", b'{"x": x, '),
    "what is returned": (b"return {", b"yield {"),
    "a base": (b"class Mixer:", b"class Mixer(Base):"),
    "a keyword-only argument": (b"x, *, scale", b"x, scale"),
}


@pytest.mark.parametrize("change", SAME)
def test_what_computes_nothing_does_not_count(change: str) -> None:
    before, after = SAME[change]
    assert before in FILE
    assert FILE.replace(before, after) != FILE
    assert syntax(FILE.replace(before, after)).sha256 == syntax(FILE).sha256


@pytest.mark.parametrize("change", OTHER)
def test_what_computes_counts(change: str) -> None:
    before, after = OTHER[change]
    assert before in FILE
    assert syntax(FILE.replace(before, after)).sha256 != syntax(FILE).sha256


def test_every_two_changes_differ() -> None:
    files = [FILE, *(FILE.replace(*change) for change in OTHER.values())]
    assert len({syntax(file).sha256 for file in files}) == len(files)


def test_imports_are_found_wherever_they_are() -> None:
    inside = FILE + b"\n    def later(self):\n        import jax.numpy as jnp\n        from ..lab import ops\n"
    assert syntax(inside).imports == (
        (0, "math", ()),
        (1, "", ("core",)),
        (0, "models.core", ("Dims", "fold")),
        (0, "jax.numpy", ()),
        (2, "lab", ("ops",)),
    )


def test_one_definition_can_be_taken_alone() -> None:
    whole = syntax(FILE, "Mixer").sha256
    assert syntax(FILE.replace(b"import math\n", b""), "Mixer").sha256 == whole
    assert syntax(FILE.replace(b"x * scale", b"x / scale"), "Mixer").sha256 != whole
    with pytest.raises(ValueError, match="0 definitions of Mixed"):
        syntax(FILE, "Mixed")


def test_the_hash_is_that_of_the_text_it_is_said_to_be_of() -> None:
    """By hand, so that a change of the form, which makes every run a new one, is noticed."""
    text = '(Module body=(Assign targets=(Name id=[str:"a"]) value=(BinOp left=[int:1] op=(Add) right=[str:"b"])))'
    assert syntax(b'a = 1 + "b"  # c').sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_is_the_same_in_every_version_of_python() -> None:
    """The value was computed by Python 3.10, 3.11, 3.12 and 3.13."""
    assert syntax(FILE).sha256 == "d024091ad7338ba85c2f90699f7fff8969f42a64d52edaf39791863ba2a13b18"
