"""Python bytes literals, as `repr(bytes)` writes them: the texts of LRA's Retrieval files.

    literal = ("b" | "B") quote token* quote      the same quote twice, ' or "
    token   = any ASCII character but a backslash, that quote, NUL and line ends
            | "\\" one of  \\ ' " a b f n r t v
            | "\\" one to three octal digits, at most 377
            | "\\x" two hexadecimal digits

Stricter than Python: no line continuation, no triple quotes, and an unknown escape is an error.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(rb"""[^\\'"\0\n\r\x80-\xff]+|['"]|\\(?:[\\'"abfnrtv]|[0-7]{1,3}|x[0-9A-Fa-f]{2})""")
_ESCAPES = dict(zip(rb"\'" + b'"abfnrtv', b"\\'\"\a\b\f\n\r\t\v", strict=True))


def bytes_literal(field: bytes, max_bytes: int) -> bytes:
    """Return the first `max_bytes` bytes of the value of a Python bytes literal.

    After these bytes, only the closing quote is checked.

    Raises:
      ValueError: the field is not such a literal; the message gives the position, counted from 0.
    """
    if field[:1] not in (b"b", b"B") or field[1:2] not in (b"'", b'"'):
        raise ValueError(f"position 0: {excerpt(field)} does not begin a bytes literal")
    quote, last = field[1:2], len(field) - 1
    if last < 2 or field[last:] != quote:
        raise ValueError(f"position {last}: the literal is not closed by {quote.decode()}")
    value, at = bytearray(), 2
    while len(value) < max_bytes:
        token = _TOKEN.match(field, at)
        if token is None:
            raise ValueError(f"position {at}: {excerpt(field[at:])} is not valid in a bytes literal")
        piece = token.group()
        if piece == quote:
            if at != last:
                raise ValueError(f"position {at + 1}: text after the closing quote")
            break
        if piece[0] != 0x5C:
            value += piece
        elif (char := piece[1]) in _ESCAPES:
            value.append(_ESCAPES[char])
        else:
            byte = int(piece[2:], 16) if char == 0x78 else int(piece[1:], 8)
            if byte > 255:
                raise ValueError(f"position {at}: {piece.decode()} is more than a byte")
            value.append(byte)
        at = token.end()
        if at > last:
            raise ValueError(f"position {last}: the literal is not closed by {quote.decode()}")
    return bytes(value[:max_bytes])


def excerpt(field: bytes) -> str:
    """Return the beginning of a field for a message."""
    return repr(field[:20].decode("latin-1")) + ("..." if len(field) > 20 else "")
