"""Bytes literals are read as Python reads them, and errors name the position."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.retrieval.bytes_literal import bytes_literal


def python_reads(field: bytes) -> bytes | None:
    """Return Python's value of one literal; None if it is not one, or if Python warns."""
    text = field.decode("latin-1")
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # unknown escapes
            value = ast.literal_eval(text)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    # Python joins neighbours (b'a'b'b'); they are more than one literal.
    return value if isinstance(value, bytes) and kinds.count(tokenize.STRING) == 1 else None


def ours_reads(field: bytes) -> bytes | None:
    try:
        return bytes_literal(field, 1 << 20)
    except ValueError:
        return None


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 310))
@example(bytes(range(256)), 256)
@example(b'it\'s "quoted" \\ \x00', 5)
@example(b"plain text", 3)
def test_literal_gives_back_what_repr_wrote(data: bytes, max_bytes: int) -> None:
    for text in (repr(data), "B" + repr(data)[1:], "b'" + "".join(f"\\x{b:02X}" for b in data) + "'"):
        assert bytes_literal(text.encode(), max_bytes) == data[:max_bytes]
    octal = "b'" + "".join(f"\\{b:03o}" for b in data) + "'"
    assert bytes_literal(octal.encode(), max_bytes) == data[:max_bytes]


# Whatever a literal can stumble over. No octal above 377: before 3.12 Python takes it without a warning.
PIECES = ["b", "B", "'", '"', "\\", r"\x4", r"\x4e", r"\12", r"\1234", r"\377", r"\8", r"\n", r"\u", "a", "\xe9"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@example("")
@example("\\")
@example("'b'")
def test_literal_accepts_what_python_accepts(body: str) -> None:
    for text in (body, f"b'{body}'", f'B"{body}"'):
        if '"""' not in text and "'''" not in text:  # triple quotes: no part of this grammar
            field = text.encode("latin-1")
            assert ours_reads(field) == python_reads(field), text


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (b"", "position 0"),
        (b"'text'", "position 0: \"'text'\" does not begin"),
        (b"rb'text'", "position 0"),
        (b"b", "position 0"),
        (b"b'text", "position 5: the literal is not closed by '"),
        (b"b'text\"", "position 6: the literal is not closed by '"),
        (b"b'text\\'", "position 7: the literal is not closed by '"),
        (b"b'te'xt'", "position 5: text after the closing quote"),
        (b"b'te\\qxt'", "position 4: .*qxt"),
        (b"b'te\\xg0'", "position 4"),
        (b"b'\\400'", "position 2: \\\\400 is more than a byte"),
        (b"b'te\\\nxt'", "position 4"),
        (b"b'te\nxt'", "position 4"),
        (b"b'te\xe9xt'", "position 4"),
        (b"b'te\0xt'", "position 4"),
    ],
)
def test_malformed_literal_names_the_position(field: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bytes_literal(field, 100)


def test_a_literal_is_read_only_to_max_bytes() -> None:
    assert bytes_literal(b"b'abcd\\q'", 4) == b"abcd"
    assert bytes_literal(b"b'\\x61\\x62\\xzz'", 2) == b"ab"
    with pytest.raises(ValueError, match="position 6"):
        bytes_literal(b"b'abcd\\q'", 5)
