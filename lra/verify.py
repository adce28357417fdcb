"""Is the prepared data what the card says? Counts, balance, lengths, vocabulary, overlap, hashes.

Counts and balance are laws only for what is known by its content (the official archive) or made here; a sample or an
unrecognised copy is described, not judged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from tasks.core import GENERATED, OFFICIAL, SAMPLE, Card, DataError, Prepared, Split

IMAGES = ("image", "pathfinder")


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """What was counted in one split.

    expected:          examples by the card; None where the source has no fixed size
    class_counts:      examples of each class
    bytes_min, bytes_mean, bytes_max: of the documents of all examples; a pair counts twice
    outside:           bytes that have no token id
    shared_inputs:     examples whose input (document or ordered pair) is also one of the training split's
    shared_documents:  distinct documents that the training split has as well
    """

    split: str
    examples: int
    expected: int | None
    class_counts: tuple[int, ...]
    bytes_min: int
    bytes_mean: float
    bytes_max: int
    outside: int
    shared_inputs: int
    shared_documents: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Report:
    """The verdict on one prepared data set: bad if there are problems; notes are worth knowing and no fault."""

    task: str
    variant: str
    version: int
    source: str
    sha256: str
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(prepared: Prepared, card: Card) -> Report:
    """Counts and hashes everything anew; what the files' own metadata say, `prepare` has checked when it read them.

    Returns:
      the report; what is wrong stands in its `problems`, nothing is raised for it
    """
    sizes = card.variants[prepared.variant].sizes
    judged = prepared.source.startswith((OFFICIAL, GENERATED))
    problems = [f"split {name} is missing" for name in sizes if name not in prepared.splits]
    problems += [f"split {name} does not belong here" for name in prepared.splits if name not in sizes]
    notes: list[str] = []
    reports = []
    train = _Contents.of(prepared.splits.get("train"))
    for name, split in prepared.splits.items():
        report = _report(name, split, card, sizes.get(name) if judged else None, train)
        problems += _faults(report, split, prepared, card)
        if report.expected not in (None, report.examples):
            problems.append(f"{name} has {report.examples:,} examples, not {report.expected:,}")
        elif not judged and report.examples != sizes.get(name):
            notes.append(f"{name} has {report.examples:,} examples; the full set has {sizes.get(name, 0):,}")
        if absent := [c for c, n in zip(card.classes, report.class_counts, strict=True) if not n]:
            (problems if judged else notes).append(f"{name} has no example of class {', '.join(absent)}")
        if report.shared_inputs:
            what = f"{report.shared_inputs:,} of {report.examples:,} inputs of {name} are also in train"
            (problems if prepared.source.startswith(GENERATED) else notes).append(what)
        reports.append(report)
    digest = "".join(f"{r.split}:{r.sha256}\n" for r in sorted(reports, key=lambda r: r.split))
    if (found := hashlib.sha256(digest.encode()).hexdigest()) != prepared.sha256:
        problems.append(f"the splits hash to {found[:8]}, the data set says {prepared.sha256[:8]}")
    return Report(
        prepared.task,
        prepared.variant,
        prepared.version,
        prepared.source,
        prepared.sha256,
        tuple(reports),
        tuple(problems),
        tuple(notes),
    )


def verify_table(reports: Sequence[Report]) -> Table:
    """One section a data set, one row a split."""
    table = Table(caption="B = bytes of a document; in train = inputs that the training split has as well")
    for name, justify in (
        ("data", "left"),
        ("split", "left"),
        ("examples", "right"),
        ("class share", "right"),
        ("B min", "right"),
        ("mean", "right"),
        ("max", "right"),
        ("in train", "right"),
        ("sha256", "left"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for report in reports:
        title = [f"[bold]{report.task}[/] {report.variant}", report.source, f"sha256 {report.sha256[:8]}"]
        heads = title + [""] * (len(report.splits) - len(title))
        for row in range(max(len(heads), len(report.splits))):
            verdict = ("[green]ok[/]" if report.ok else "[red]bad[/]") if row == 0 else ""
            table.add_row(heads[row], *(_cells(report.splits[row]) if row < len(report.splits) else [""] * 8), verdict)
        table.add_section()
    return table


def _cells(split: SplitReport) -> list[str]:
    count = f"{split.examples:,}"
    if split.expected not in (None, split.examples):
        count = f"[red]{count} of {split.expected:,}[/]"
    shares = [100 * n / max(1, split.examples) for n in split.class_counts]
    low, high = f"{min(shares):.1f}", f"{max(shares):.1f}"
    return [
        split.split,
        count,
        f"{low} %" if low == high else f"{low} to {high} %",
        f"{split.bytes_min:,}",
        f"{split.bytes_mean:,.0f}",
        f"{split.bytes_max:,}",
        "" if split.split == "train" else f"{split.shared_inputs:,}",
        split.sha256[:8],
    ]


def class_names(prepared: Prepared, card: Card) -> tuple[str, ...]:
    """Names of the classes as they are in this data: the sample of Image shows figures, not aeroplanes."""
    if card.name == "image" and prepared.source.startswith(SAMPLE):
        from tasks.samples import PICTURE_CLASSES

        return PICTURE_CLASSES
    return card.classes


def image_side(split: Split) -> int:
    """R of pictures [R, R].

    Raises:
      DataError: not every document has R * R bytes.
    """
    sizes = np.unique(np.diff(split.offsets))
    side = math.isqrt(int(sizes[0])) if len(sizes) == 1 else 0
    if side < 1 or side * side != sizes[0]:
        raise DataError(f"pictures of {', '.join(map(str, sizes[:3])) or 'no'} bytes are not squares of one size")
    return side


@dataclasses.dataclass(frozen=True)
class _Contents:
    """Documents and inputs of a split, by hash: `documents [D]` and `inputs [N]` in order, for counting."""

    documents: np.ndarray
    inputs: np.ndarray

    @classmethod
    def of(cls, split: Split | None) -> _Contents:
        if split is None:
            return cls(np.zeros(0, "V16"), np.zeros(0, "V16"))
        data, bounds = split.data.data, split.offsets.tolist()
        hashes = (
            hashlib.blake2b(data[a:b], digest_size=16).digest() for a, b in zip(bounds[:-1], bounds[1:], strict=True)
        )
        documents = np.fromiter(hashes, "V16", len(bounds) - 1)
        inputs = np.ascontiguousarray(documents[split.items]).reshape(len(split), -1)
        return cls(documents, inputs.view(f"V{16 * inputs.shape[1]}").reshape(-1))


def _report(name: str, split: Split, card: Card, expected: int | None, train: _Contents) -> SplitReport:
    shared_inputs = shared_documents = 0
    if name != "train":
        contents = _Contents.of(split)
        there = set(train.inputs.tolist())
        shared_inputs = sum(i in there for i in contents.inputs.tolist())
        used = set(contents.documents[np.unique(split.items)].tolist())
        shared_documents = len(used & set(train.documents.tolist()))
    lengths = split.lengths
    return SplitReport(
        split=name,
        examples=len(split),
        expected=expected,
        class_counts=tuple(np.bincount(split.labels, minlength=len(card.classes)).tolist()),
        bytes_min=int(lengths.min(initial=np.iinfo(np.int64).max)) if lengths.size else 0,
        bytes_mean=float(lengths.mean()) if lengths.size else 0.0,
        bytes_max=int(lengths.max(initial=0)),
        outside=int((split.data >= card.vocab_size - 1).sum()),
        shared_inputs=shared_inputs,
        shared_documents=shared_documents,
        sha256=split.sha256,
    )


def _faults(report: SplitReport, split: Split, prepared: Prepared, card: Card) -> list[str]:
    """What is wrong whatever the source."""
    faults = []
    longest = card.variants[prepared.variant].max_bytes
    if not report.examples:
        faults.append(f"{report.split} is empty")
    if report.outside:
        faults.append(f"{report.split} has {report.outside:,} bytes outside the vocabulary of {card.vocab_size - 1}")
    if report.bytes_max > longest:
        faults.append(
            f"{report.split} has a document of {report.bytes_max:,} bytes; {prepared.variant} allows {longest:,}"
        )
    if report.examples and not report.bytes_min:
        faults.append(f"{report.split} has an empty document")
    if (split.items.ndim == 2) != card.pairs:
        faults.append(
            f"{report.split} holds {'pairs' if split.items.ndim == 2 else 'single documents'}, which is wrong for {card.name}"
        )
    if len(report.class_counts) > len(card.classes):
        faults.append(
            f"{report.split} has a label {len(report.class_counts) - 1}; there are {len(card.classes)} classes"
        )
    if card.name in IMAGES:
        try:
            image_side(split)
        except DataError as error:
            faults.append(f"{report.split}: {error}")
    return faults
