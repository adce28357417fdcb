"""docs/mixers.md lists the published forms (protocols.toml), and every form satisfies the padding contract."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import pytest

from lra.contract import checks as contract
from lra.contract.harness import MixerUnderTest
from lra.leaderboard.published import FIVE, accuracy
from models import mixers
from tasks import load_task
from tests.labels import parsed

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "mixers.md").read_text()
COMPARED = {table.protocol: table for table in accuracy() if table.protocol}
TITLES = {load_task(task).CARD.title.partition(" ")[0]: task for task in FIVE}
LABELS = sorted({label for table in COMPARED.values() for row in table.rows for label in row.labels.values()})


def forms_on_the_page(protocol: str) -> list[tuple[str, str, str]]:
    """Return (published row, task, label) of the table in the section of a protocol."""
    (section,) = (part for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE) if f"protocol `{protocol}`\n" in part)
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([^`]+)` \| [^|]+ \|$", section, re.MULTILINE)
    return [
        (name, task, label)
        for name, titles, label in rows
        for task in (FIVE if titles == "all" else [TITLES[title] for title in titles.split(", ")])
    ]


@pytest.mark.parametrize("protocol", COMPARED)
def test_the_page_lists_every_form_and_no_other(protocol: str) -> None:
    forms = [(row.name, task, label) for row in COMPARED[protocol].rows for task, label in row.labels.items()]
    assert sorted(forms_on_the_page(protocol)) == sorted(forms)


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_that_of_its_options(label: str) -> None:
    name, options = parsed(label)
    assert mixers.label(name, options) == label


@pytest.mark.parametrize("label", [label for label in LABELS if "(" in label])
def test_a_published_form_does_not_depend_on_padding(label: str) -> None:
    """`tests/lra/contract/test_contract.py` checks the whole contract of the forms in `contract.FORMS`."""
    name, options = parsed(label)
    if options in contract.FORMS.get(name, ()):
        return
    subject = MixerUnderTest(mixers.resolve(name), options)
    for check in (contract.shapes, contract.padding_content, contract.padding_amount, contract.all_padding_example):
        check(subject)
    jax.clear_caches()
