"""Verify prepared data: counts, balance, lengths, vocabulary, overlap between splits, hashes.

Counts and balance must hold for the official archive (known by its content) and for generated data. A sample or an
unrecognised copy is described and not judged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from lra.data.prepare import image_side
from tasks.core import GENERATED, OFFICIAL, SAMPLE, Card, Prepared, Split, copy_name, has_other_sizes
from tasks.errors import DataError

_HASH = 16  # bytes of a document's hash
DEVIATIONS = 5  # standard deviations by which a class may miss its share: one split in a million misses it by more


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
    """The verdict on one prepared data set: bad if there are problems; notes are worth knowing and no fault.

    variant: under which scores on the data are reported
    """

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
    """Count and hash everything again; `prepare` checked what the files' own metadata say when it read them.

    Returns:
      the report; what is wrong is listed in its `problems`, nothing is raised for it
    """
    sizes = card.variants[prepared.variant].sizes
    judged = prepared.source.startswith((OFFICIAL, GENERATED))
    unique = prepared.source.startswith((GENERATED, SAMPLE))  # made here, and no example twice
    problems = [f"split {name} is missing" for name in sizes if name not in prepared.splits]
    problems += [f"split {name} does not belong here" for name in prepared.splits if name not in sizes]
    notes: list[str] = []
    counts = {name: len(split) for name, split in prepared.splits.items()}
    copy = has_other_sizes(card, prepared.variant, prepared.source, counts)
    reported = copy_name(prepared.variant) if copy else prepared.variant
    if copy:
        notes.append(_copy_note(prepared.variant, counts, sizes))
    reports = []
    hashes = {name: _hashes(split) for name, split in prepared.splits.items()}
    documents, inputs = hashes.get("train", ([], []))
    train = set(documents), set(inputs)
    pairs = "train" in hashes and prepared.splits["train"].items.ndim == 2
    leanings = _leanings(inputs, prepared.splits["train"].labels) if pairs else {}
    for name, split in prepared.splits.items():
        report = _report(name, split, card, sizes.get(name) if judged else None, hashes[name], train)
        problems += _faults(report, split, prepared, card)
        if report.expected not in (None, report.examples):
            problems.append(f"{name} has {report.examples:,} examples, not {report.expected:,}")
        elif not (judged or copy) and report.examples != sizes.get(name):
            notes.append(f"{name} has {report.examples:,} examples; the full set has {sizes.get(name, 0):,}")
        if absent := [c for c, n in zip(card.classes, report.class_counts, strict=False) if not n]:
            (problems if judged else notes).append(f"{name} has no example of class {', '.join(absent)}")
        if judged and card.balanced:
            problems += _unbalanced(report, card)
        (problems if unique else notes).extend(_shared(name, {n: inputs for n, (_, inputs) in hashes.items()}))
        if pairs and name != "train" and split.items.ndim == 2:
            notes += _known_documents(name, split.labels, hashes[name][1], leanings)
        reports.append(report)
    digest = "".join(f"{r.split}:{r.sha256}\n" for r in sorted(reports, key=lambda r: r.split))
    if (found := hashlib.sha256(digest.encode()).hexdigest()) != prepared.sha256:
        problems.append(f"the splits hash to {found[:8]}, the data set says {prepared.sha256[:8]}")
    return Report(
        prepared.task,
        reported,
        prepared.version,
        prepared.source,
        prepared.sha256,
        tuple(reports),
        tuple(problems),
        tuple(notes),
    )


def verify_table(report: Report) -> Table:
    """One row a split; the verdict above, problems and notes below. Fits into 80 columns."""
    verdict = Text("ok", "green") if report.ok else Text("bad", "red")
    name = Text.assemble(
        (f"{report.task} {report.variant}", "bold"), f"  {report.source}  {report.sha256[:8]}  ", verdict
    )
    remarks = [Text(f"problem: {what}", "red") for what in report.problems]
    remarks += [Text(f"note: {what}", "dim") for what in report.notes]
    table = Table(
        title=name,
        caption=Text("\n").join(remarks) if remarks else None,
        title_style="",
        caption_style="",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("split", min_width=10)
    for heading, width in (("examples", 9), ("a class has", 11), ("min B", 6), ("mean B", 6), ("max B", 6)):
        table.add_column(heading, min_width=width, justify="right")
    table.add_column("no token", justify="right")  # bytes that have none
    table.add_column("in train", justify="right")  # inputs that the training split has as well
    table.add_column("sha256", min_width=8)
    for split in report.splits:
        table.add_row(*_cells(split))
    return table


def _cells(split: SplitReport) -> list[str]:
    shares = [f"{100 * count / max(1, split.examples):.1f}" for count in split.class_counts]
    low, high = min(shares, key=float), max(shares, key=float)
    return [
        split.split,
        f"{split.examples:,}",
        f"{low} %" if low == high else f"{low}-{high} %",
        f"{split.bytes_min:,}",
        f"{split.bytes_mean:,.0f}",
        f"{split.bytes_max:,}",
        f"{split.outside:,}",
        "" if split.split == "train" else f"{split.shared_inputs:,}",
        split.sha256[:8],
    ]


def _copy_note(variant: str, counts: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    differing = [
        f"{name} has {count:,} examples, the task's has {sizes.get(name, 0):,}"
        for name, count in counts.items()
        if count != sizes.get(name)
    ]
    return (
        f"a copy, not the task's own data: {'; '.join(differing)}. Scores on it are reported as "
        f"{copy_name(variant)}, not as {variant}, and no mean over tasks counts them"
    )


def _unbalanced(report: SplitReport, card: Card) -> list[str]:
    """Classes whose share is further from an equal one than `DEVIATIONS` standard deviations of a fair draw."""
    mean = report.examples / len(card.classes)
    allowed = DEVIATIONS * math.sqrt(mean * (1 - 1 / len(card.classes)))
    counts = zip(card.classes, report.class_counts, strict=False)
    return [
        f"{report.split} has {count:,} of {report.examples:,} examples of class {name}; equal shares are {mean:,.0f}"
        for name, count in counts
        if count and abs(count - mean) > allowed
    ]


def _shared(split: str, inputs: Mapping[str, list[bytes]]) -> list[str]:
    """What a split has in common with each split before it."""
    names = list(inputs)
    found = []
    for earlier in names[: names.index(split)]:
        known = set(inputs[earlier])
        if count := sum(i in known for i in inputs[split]):
            found.append(f"{count:,} of {len(inputs[split]):,} inputs of {split} are also in {earlier}")
    return found


def _hashes(split: Split) -> tuple[list[bytes], list[bytes]]:
    """Of every document that is used, and of every example's input (two hashes end to end for a pair)."""
    documents = {
        d: hashlib.blake2b(split.document(d), digest_size=_HASH).digest() for d in np.unique(split.items).tolist()
    }
    items = split.items if split.items.ndim == 2 else split.items[:, None]
    inputs = [b"".join(documents[d] for d in row) for row in items.tolist()]
    return list(documents.values()), inputs


def _leanings(inputs: Iterable[bytes], labels: np.ndarray) -> dict[bytes, int]:
    """Of every document (by hash) of pairs labelled 0 or 1: its pairs of label 1 less those of label 0."""
    leanings: dict[bytes, int] = {}
    for pair, label in zip(inputs, labels.tolist(), strict=True):
        for document in (pair[:_HASH], pair[_HASH:]):
            leanings[document] = leanings.get(document, 0) + (1 if label else -1)
    return leanings


def _known_documents(name: str, labels: np.ndarray, inputs: list[bytes], leanings: Mapping[bytes, int]) -> list[str]:
    """What learning the training split's documents by heart, without comparing any two, is worth on another split.

    Far above 50 % is a leak. Far below it, as where every document was given as many pairs of label 1 as of
    label 0 before the pairs were split, a model that learns by heart falls below chance.
    """
    known = sum(pair[:_HASH] in leanings or pair[_HASH:] in leanings for pair in inputs)
    votes = np.array([leanings.get(pair[:_HASH], 0) + leanings.get(pair[_HASH:], 0) for pair in inputs])
    lean = votes != 0
    if not lean.any():
        return []
    right = ((votes > 0) == labels)[lean].mean()
    return [
        f"{known:,} of {len(inputs):,} pairs of {name} have a document of train; the label that it had more often "
        f"there is right for {100 * right:.1f} % of {lean.sum():,} pairs, ties left out"
    ]


def _report(
    name: str,
    split: Split,
    card: Card,
    expected: int | None,
    hashes: tuple[list[bytes], list[bytes]],
    train: tuple[set[bytes], set[bytes]],
) -> SplitReport:
    shared_inputs = shared_documents = 0
    if name != "train":
        documents, inputs = hashes
        shared_documents = len(set(documents) & train[0])
        shared_inputs = sum(i in train[1] for i in inputs)
    lengths = split.lengths
    return SplitReport(
        split=name,
        examples=len(split),
        expected=expected,
        class_counts=tuple(np.bincount(split.labels, minlength=len(card.classes)).tolist()),
        bytes_min=int(lengths.min(initial=np.iinfo(np.int64).max)) if lengths.size else 0,
        bytes_mean=float(lengths.mean()) if lengths.size else 0.0,
        bytes_max=int(lengths.max(initial=0)),
        outside=0 if card.vocab_size > 256 else int(np.count_nonzero(split.data >= card.vocab_size - 1)),
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
        faults.append(f"{report.split} {'does not hold' if card.pairs else 'holds'} pairs")
    if len(report.class_counts) > len(card.classes):
        faults.append(
            f"{report.split} has a label {len(report.class_counts) - 1}; there are {len(card.classes)} classes"
        )
    if card.pictures:
        try:
            image_side(split)
        except DataError as error:
            faults.append(f"{report.split}: {error}")
    return faults
