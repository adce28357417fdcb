"""docs/mixers.md: the options by which published rows are reproduced exist, and hold what makes rows comparable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lra import contract
from models import mixers

PAGE = Path(__file__).resolve().parent.parent / "docs" / "mixers.md"
ROWS = re.findall(r"^\| `(\w+)` \| (.+) \| (?:`(.*)` )?\|$", PAGE.read_text(), re.MULTILINE)
FORMS = [(name, options) for name, _, options in ROWS if options]


def test_every_row_of_the_paper_is_on_the_page() -> None:
    published = (
        "local linear reformer sparse sinkhorn linformer performer synthesizer longformer softmax bigbird cosformer"
    )
    assert {name for name, _, _ in ROWS} >= set(published.split())
    assert len(FORMS) >= 10


@pytest.mark.parametrize(("name", "options"), FORMS)
def test_a_published_form_is_put_to_the_contract(name: str, options: str) -> None:
    """`tests/lra/test_contract.py` runs the contract of every form in `FORMS`."""
    parsed = mixers.parse_options(mixers.resolve(name).cls, options.split())
    assert parsed in contract.FORMS[name]
