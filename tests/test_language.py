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
PROGRAM = [
    ROOT / "run_lra.py",
    *sorted(path for folder in ("configs", "lra", "models", "tasks") for path in (ROOT / folder).rglob("*.py")),
]

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


def string_literals(source: str) -> Iterator[str]:
    """Yield all string literals: docstrings, help texts, error messages and printed texts."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield joined(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


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


def test_docstrings_help_texts_and_messages_have_none_of_the_phrases() -> None:
    lines = {
        f"{path.relative_to(ROOT)}: {line}"
        for path in PROGRAM
        for text in string_literals(path.read_text("utf-8"))
        for line in findings(text)
    }
    assert not lines, "\n".join(sorted(lines))


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


def test_phrases_are_found_in_docstrings_and_messages() -> None:
    source = "class A:\n    x: int\n    'The first at hand.'\n    def f(self):\n        raise E(f'{x} is {y} mended')\n"
    assert sum(len(findings(text)) for text in string_literals(source)) >= 2
