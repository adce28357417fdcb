"""Texts for users are in plain technical English: no archaic phrases and no metaphors in place of the field's words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
)
WITH_HELP = [ROOT / "run_lra.py", ROOT / "lra" / "config.py", ROOT / "lra" / "protocols.py"]
PROGRAM = sorted(path for folder in ("configs", "lra", "models", "tasks") for path in (ROOT / folder).rglob("*.py"))

# What a text must not contain (regular expressions, without regard to case), and what to write in its place.
PHRASES = {
    r"\b(go|goes|went|gone|going) on\b": "resume, continue",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\banew\b|\bafresh\b": "again, from scratch",
    r"\b(at|to|in) hand\b": "available",
    r"\b(files?|data|numbers?|records?|it|they|which|what) (lie|lies|stand|stands)\b": "is stored, is listed",
    r"\b(lies|stands|lying|standing) (in|under|beside|there|where|twice)\b": "is stored, is listed",
    r"\b(is|are|was|were) (said|told)\b|\bheld against\b|\bput to\b": "reported, printed, compared with, tested by",
    r"\bforetold\b|\bforetell": "estimated",
    r"\b(learn\w*|know|knows) (\w+ )?by heart\b": "memorise",
    r"\bbeside it\b|\bother work beside\b": "at the same time; on a shared machine",
    r"\bthe floors?\b": "the trivial baseline",
    r"\bsigns? of life\b": "a heartbeat",
    r"\b(dealt|deals?|dealing) out\b|\bis dealt\b|\bare dealt\b": "sharded, assigned",
    r"\bwhat (came|comes) out\b|\bwhat came of\b": "results",
    r"\bth(e|is) house\b": "repository layout",
    r"\b(turn|turns|turned) (that|it|this|them) (round|around)\b": "reverse the ordering",
    r"\b(drew|draws?|drawn) other bits\b": "used a different RNG",
    r"\bof what there is not\b|\bwhat there is\b": "an unknown option",
    r"\bso that nothing (can|could) be\b": "to prevent ...",
    r"\bof one's own\b|\bof nobody\b|\bnobody's\b": "your own, no",
    r"\bthe one (before|after) it\b": "the previous one, the next one",
    r"\bmade up\b(?! of)": "synthetic",
    r"\b(whence|thence|thereof|wherein|hitherto|lest|ere|unto|betwixt|amongst|whilst)\b": "a modern word",
}


def joined(node: ast.AST) -> str:
    """Return the text of all string constants in an expression; every other part of an f-string is one blank."""
    constants = (child.value for child in ast.walk(node) if isinstance(child, ast.Constant))
    return " ".join(value for value in constants if isinstance(value, str))


def help_texts(source: str) -> Iterator[str]:
    """Yield the docstrings of a module: of itself, its classes and functions, and of the fields of its classes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
        elif isinstance(node, ast.keyword) and node.arg == "help":
            yield joined(node.value)


def error_messages(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield joined(node.exc)


def findings(text: str) -> list[str]:
    """Return a line for each phrase of `PHRASES` in a text."""
    plain = " ".join(text.split())
    return [
        f"{plain[max(0, match.start() - 40) : match.end() + 40]!r}: write {better!r}"
        for pattern, better in PHRASES.items()
        for match in re.finditer(pattern, plain, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_have_none_of_the_phrases(path: Path) -> None:
    assert not findings(path.read_text("utf-8"))


@pytest.mark.parametrize("path", WITH_HELP, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_help_texts_have_none_of_the_phrases(path: Path) -> None:
    assert not [line for text in help_texts(path.read_text("utf-8")) for line in findings(text)]


def test_error_messages_have_none_of_the_phrases() -> None:
    lines = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in [ROOT / "run_lra.py", *PROGRAM]
        for text in error_messages(path.read_text("utf-8"))
        for line in findings(text)
    ]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "The same command goes on with it.",
        "Six readers crashed and were\nmended.",
        "the first that is at hand",
        "A damaged one is said, and the one before it is taken.",
        "The accuracies are held against the floor.",
    ],
)
def test_phrases_are_found_in_a_text(text: str) -> None:
    assert findings(text)


def test_phrases_are_found_in_help_texts_and_error_messages() -> None:
    source = "class A:\n    x: int\n    'The first at hand.'\n    def f(self):\n        raise E(f'{x}: mend it')\n"
    assert [len(findings(text)) for text in (*help_texts(source), *error_messages(source))] == [1, 1]
