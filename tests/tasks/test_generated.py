"""Generated data are the same on every machine: hashes of a few examples of each variant and source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tasks import load_task
from tasks.core import GENERATED, SAMPLE, SPLITS

SIZES = dict(zip(SPLITS, (30, 10, 10), strict=True))
FIRST = {
    ("listops", "full", GENERATED): "78648839 42f074e8 faba75fe",
    ("listops", "full", SAMPLE): "061b88a5 d8b98421 7b8903c7",
    ("listops", "short", GENERATED): "2836f6bc accfd952 f3eab84f",
    ("listops", "short", SAMPLE): "91e53f0b 80740fed 760d2a7b",
    ("pathfinder", "full", GENERATED): "a7329dee 11854a91 41cda104",
    ("pathfinder", "full", SAMPLE): "35219f3c 4b6194c1 6b89e3cd",
    ("pathfinder", "12", GENERATED): "2bb98ac0 a6e5bab8 04bc518e",
    ("pathfinder", "12", SAMPLE): "498ebd7e 54fc31b8 34aa0237",
    ("pathfinder", "32-easy", GENERATED): "2692ba1d 5a7beb3e f151aff7",
    ("pathfinder", "32-easy", SAMPLE): "9b3ce6e9 7e928aaf 7c488edb",
    ("pathfinder", "32-intermediate", GENERATED): "b3065fe6 9a7dcea6 eae32e3a",
    ("pathfinder", "32-intermediate", SAMPLE): "3a361653 bb4006fb 6ff64573",
    ("pathfinder", "64", GENERATED): "0d6a53ca 4101a3c1 601122b8",
    ("pathfinder", "64", SAMPLE): "3458ab30 281b2923 441c5f1b",
    ("pathfinder", "128", GENERATED): "736d2860 3466656a ddb67a25",
    ("pathfinder", "128", SAMPLE): "e619b3b9 975fd126 493457fa",
    ("pathfinder", "256", GENERATED): "44ad9b51 2faa453d 6b2e866b",
    ("pathfinder", "256", SAMPLE): "f850a4a3 2a8e9b07 f81e46f8",
}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "variant", "source"), FIRST)
def test_the_first_examples_are_as_recorded(
    task: str, variant: str, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a change is meant, raise the version of the task and record the new hashes."""
    module = load_task(task)
    changed = dataclasses.replace(module.CARD.variants[variant], sizes=SIZES)
    card = dataclasses.replace(module.CARD, variants={**module.CARD.variants, variant: changed})
    monkeypatch.setattr(module, "CARD", card)
    monkeypatch.setattr(module, "_SAMPLE_SIZES", SIZES if task == "listops" else tuple(SIZES.values()))
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path))
    built = module.build(variant, source, tmp_path)
    assert " ".join(part.examples.sha256[:8] for part in built) == FIRST[task, variant, source]
