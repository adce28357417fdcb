"""Verification of prepared data: counts, balance, lengths, vocabulary, overlap between splits, hashes.

Counts and balance are required of the official archive (known by its content) and of generated data. For a sample or an
unrecognised copy, differences from the card are notes and not problems.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from rich.table import Table
from rich.text import Text

from lra.data.prepare import image_side
from lra.plain_table import plain_table
from tasks.core import GENERATED, OFFICIAL, SAMPLE, Card, Prepared, Split, copy_name, has_other_sizes
from tasks.errors import DataError
from tasks.prepared import combined_sha256

_HASH = 16  # bytes of a document's hash
DEVIATIONS = 5  # standard deviations from its share that a class may have; in one of a million splits it has more


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """Counts of one split.

    expected:          examples by the card; None where the source has no fixed size
    class_counts:      examples of each class
    bytes_min, bytes_mean, bytes_max: of the documents of all examples; both documents of a pair count
    outside:           bytes that have no token id
    shared_inputs:     examples whose input (document or ordered pair) is also in the training split
    shared_documents:  distinct documents that are also in the training split
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
    """The verdict on one prepared data set: bad if there are problems. Notes are worth knowing, but not problems.

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
        """Whether there are no problems."""
        return not self.problems


def verify(prepared: Prepared, card: Card) -> Report:
    """Count and hash everything again, and return the report. Problems are listed in it, not raised.

    `prepare` has already compared the content with the metadata of its files.
    """
    sizes = card.variants[prepared.variant].sizes
    judged = prepared.source.startswith((OFFICIAL, GENERATED))
    unique = prepared.source.startswith((GENERATED, SAMPLE))  # generators do not repeat examples
    problems = [f"split {name} is missing" for name in sizes if name not in prepared.splits]
    problems += [f"split {name} does not belong here" for name in prepared.splits if name not in sizes]
    notes: list[str] = []
    counts = {name: len(split) for name, split in prepared.splits.items()}
    if copy := has_other_sizes(card, prepared.variant, prepared.source, counts):
        notes.append(_copy_note(prepared.variant, counts, sizes))
    if card.copy_notes is not None and not (judged or unique):
        notes += card.copy_notes(prepared.splits, prepared.source)
    hashes = {name: _hashes(split) for name, split in prepared.splits.items()}
    inputs = {name: of_examples for name, (_, of_examples) in hashes.items()}
    train = prepared.splits.get("train")
    votes = _document_label_votes(inputs["train"], train.labels) if train and train.items.ndim == 2 else None
    reports = []
    for name, split in prepared.splits.items():
        report = _report(name, split, card, sizes.get(name) if judged else None, hashes)
        problems += _faults(report, split, prepared, card)
        if report.expected not in (None, report.examples):
            problems.append(f"{name} has {report.examples:,} examples, not {report.expected:,}")
        elif not (judged or copy) and report.examples != sizes.get(name):
            notes.append(f"{name} has {report.examples:,} examples; the full set has {sizes.get(name, 0):,}")
        if absent := [c for c, n in zip(card.classes, report.class_counts, strict=False) if not n]:
            (problems if judged else notes).append(f"{name} has no example of class {', '.join(absent)}")
        if judged and card.balanced:
            problems += _unbalanced(report, card)
        (problems if unique else notes).extend(_shared(name, inputs))
        if votes is not None and name != "train" and split.items.ndim == 2:
            notes += _memorisation_leak(name, split.labels, inputs[name], votes)
        reports.append(report)
    if (sha256 := combined_sha256({r.split: r.sha256 for r in reports})) != prepared.sha256:
        problems.append(f"the splits hash to {sha256[:8]}, the data set says {prepared.sha256[:8]}")
    return Report(
        task=prepared.task,
        variant=copy_name(prepared.variant) if copy else prepared.variant,
        version=prepared.version,
        source=prepared.source,
        sha256=prepared.sha256,
        splits=tuple(reports),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def verify_table(report: Report) -> Table:
    """Return a table with one row per split, the verdict above, and problems and notes below. It has 80 columns."""
    verdict = Text("ok", "green") if report.ok else Text("bad", "red")
    name = Text.assemble(
        (f"{report.task} {report.variant}", "bold"), f"  {report.source}  {report.sha256[:8]}  ", verdict
    )
    remarks = [Text(f"problem: {text}", "red") for text in report.problems]
    remarks += [Text(f"note: {text}", "dim") for text in report.notes]
    table = plain_table(
        title=name,
        caption=Text("\n").join(remarks) if remarks else None,
        title_style="",
        caption_style="",
        title_justify="left",
        caption_justify="left",
        padding=0,
    )
    table.add_column("split", min_width=10)
    for heading, width in (("examples", 9), ("a class has", 11), ("min B", 6), ("mean B", 6), ("max B", 6)):
        table.add_column(heading, min_width=width, justify="right")
    table.add_column("no token", justify="right")  # bytes without a token id
    table.add_column("in train", justify="right")  # inputs that are also in the training split
    table.add_column("sha256", min_width=8)
    for split in report.splits:
        shares = [f"{100 * count / max(1, split.examples):.1f}" for count in split.class_counts]
        low, high = min(shares, key=float), max(shares, key=float)
        table.add_row(
            split.split,
            f"{split.examples:,}",
            f"{low} %" if low == high else f"{low}-{high} %",
            f"{split.bytes_min:,}",
            f"{split.bytes_mean:,.0f}",
            f"{split.bytes_max:,}",
            f"{split.outside:,}",
            "" if split.split == "train" else f"{split.shared_inputs:,}",
            split.sha256[:8],
        )
    return table


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
    """Name the classes whose count deviates from equal shares by more than `DEVIATIONS` standard deviations."""
    mean = report.examples / len(card.classes)
    allowed = DEVIATIONS * math.sqrt(mean * (1 - 1 / len(card.classes)))
    counts = zip(card.classes, report.class_counts, strict=False)
    return [
        f"{report.split} has {count:,} of {report.examples:,} examples of class {name}; equal shares are {mean:,.0f}"
        for name, count in counts
        if count and abs(count - mean) > allowed
    ]


def _shared(split: str, inputs: Mapping[str, list[bytes]]) -> list[str]:
    """Count the inputs that a split has in common with each earlier split."""
    names = list(inputs)
    lines = []
    for earlier in names[: names.index(split)]:
        if count := _count_in(inputs[split], set(inputs[earlier])):
            lines.append(f"{count:,} of {len(inputs[split]):,} inputs of {split} are also in {earlier}")
    return lines


def _count_in(inputs: Iterable[bytes], others: set[bytes]) -> int:
    return sum(i in others for i in inputs)


def _hashes(split: Split) -> tuple[list[bytes], list[bytes]]:
    """Return the hash of each document in use, and of each example's input: two concatenated hashes for a pair."""
    documents = {
        d: hashlib.blake2b(split.document(d), digest_size=_HASH).digest() for d in np.unique(split.items).tolist()
    }
    rows = split.items.reshape(len(split), split.items.ndim).tolist()  # one or two columns
    return list(documents.values()), [b"".join(documents[d] for d in row) for row in rows]


def _document_label_votes(inputs: Iterable[bytes], labels: np.ndarray) -> Counter[bytes]:
    """Return for each document (by hash) the number of its pairs with label 1 minus those with label 0."""
    votes: Counter[bytes] = Counter()
    for pair, label in zip(inputs, labels.tolist(), strict=True):
        for document in (pair[:_HASH], pair[_HASH:]):
            votes[document] += 1 if label else -1
    return votes


def _memorisation_leak(name: str, labels: np.ndarray, inputs: list[bytes], votes: Counter[bytes]) -> list[str]:
    """Measure on another split what can be reached by memorising the labels of the training split's documents.

    Far above 50 % is a leak. Far below it, a model that memorises is worse than chance. That happens if each document
    was given as many pairs of label 1 as of label 0 before the pairs were split.
    """
    known = sum(pair[:_HASH] in votes or pair[_HASH:] in votes for pair in inputs)
    sums = np.array([votes[pair[:_HASH]] + votes[pair[_HASH:]] for pair in inputs])
    decided = sums != 0
    if not decided.any():
        return []
    accuracy = ((sums > 0) == labels)[decided].mean()
    return [
        f"{known:,} of {len(inputs):,} pairs of {name} have a document of train; the label that it had more often "
        f"there is right for {100 * accuracy:.1f} % of {decided.sum():,} pairs, ties left out"
    ]


def _report(
    name: str,
    split: Split,
    card: Card,
    expected: int | None,
    hashes: Mapping[str, tuple[list[bytes], list[bytes]]],
) -> SplitReport:
    documents, inputs = hashes[name]
    train_documents, train_inputs = hashes.get("train", ([], [])) if name != "train" else ([], [])
    lengths = split.lengths
    return SplitReport(
        split=name,
        examples=len(split),
        expected=expected,
        class_counts=tuple(np.bincount(split.labels, minlength=len(card.classes)).tolist()),
        bytes_min=int(lengths.min()) if lengths.size else 0,
        bytes_mean=float(lengths.mean()) if lengths.size else 0.0,
        bytes_max=int(lengths.max(initial=0)),
        outside=0 if card.vocab_size > 256 else int(np.count_nonzero(split.data >= card.vocab_size - 1)),
        shared_inputs=_count_in(inputs, set(train_inputs)),
        shared_documents=_count_in(set(documents), set(train_documents)),
        sha256=split.sha256,
    )


def _faults(report: SplitReport, split: Split, prepared: Prepared, card: Card) -> list[str]:
    """Return problems that do not depend on the source."""
    name, longest = report.split, card.variants[prepared.variant].max_bytes
    faults = {
        f"{name} is empty": not report.examples,
        f"{name} has {report.outside:,} bytes outside the vocabulary of {card.vocab_size - 1}": report.outside > 0,
        f"{name} has a document of {report.bytes_max:,} bytes; {prepared.variant} allows {longest:,}": (
            report.bytes_max > longest
        ),
        f"{name} has an empty document": report.examples > 0 and not report.bytes_min,
        f"{name} {'does not hold' if card.pairs else 'holds'} pairs": (split.items.ndim == 2) != card.pairs,
        f"{name} has a label {len(report.class_counts) - 1}; there are {len(card.classes)} classes": (
            len(report.class_counts) > len(card.classes)
        ),
    }
    found = [text for text, is_fault in faults.items() if is_fault]
    if card.images:
        try:
            image_side(split)
        except DataError as error:
            found.append(f"{name}: {error}")
    return found
