"""Retrieval: does one paper cite the other? Pairs of ACL Anthology papers (AAN), read byte by byte.

`tasks.retrieval.official` reads the two layouts of LRA's release, in which texts are Python bytes literals or files.

LRA's own pipeline (lra_benchmarks/matching/input_pipeline.py) feeds the *source text* of the literals: `b'` first, and
four characters for a byte such as `\\xef`. Here the literals are decoded.

A document is identified by its content, not by its id, because a model reads the text of the row. An id with two texts
gives two documents, two ids with one text give one, and neither changes an example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.core import (
    OFFICIAL,
    SAMPLE,
    SPLITS,
    Built,
    Card,
    Progress,
    Split,
    Variant,
    check_request,
    chunk_rng,
    no_progress,
    source_label,
)
from tasks.origins import Origin
from tasks.retrieval.official import MAX_BYTES, OBTAIN, Pairs, locate, read_pairs, source_origin
from tasks.retrieval.sample import sample_pairs

__all__ = ["CARD", "build", "locate", "pair_split"]

CUT_PAIRS = {"train": 30_000, "validation": 1_000, "test": 1_000}

CARD = Card(
    name="retrieval",
    title="Retrieval (AAN)",
    about="Byte-level matching of two documents: does one ACL Anthology paper cite the other?",
    version=1,
    tokenizer="bytes of both documents, each truncated on its own",
    vocab_size=257,
    classes=("not cited", "cited"),
    pairs=True,
    selection="validation",
    variants={
        "full": Variant(
            "LRA's pairs, 4,096 bytes of each document",
            {"train": 147_086, "validation": 18_090, "test": 17_437},
            MAX_BYTES,
        ),
        "cut": Variant("256 bytes of each document, a fixed choice of pairs", CUT_PAIRS, 256),
    },
    sources=(OFFICIAL, SAMPLE),
    obtain=OBTAIN,
    licence="ACL Anthology: CC BY-NC-SA 3.0 (papers before 2016), CC BY 4.0 (later ones)",
    citation="Radev, Muthukrishnan, Qazvinian, Abu-Jbara (2013), The ACL Anthology Network corpus; "
    "as pairs: Tay et al. (2021), Long Range Arena, arXiv:2011.04006",
    baselines=("byte n-grams",),
)


def build(
    variant: str,
    source: str,
    data_dir: Path,
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    work_dir: Path | None = None,
) -> Iterator[Built]:
    """Return the three splits; validation is LRA's `eval`. The source is one stream.

    `workers` and `work_dir` are therefore not used.

    Memory is bounded by the distinct documents (`MAX_BYTES` of each), whatever the size of the source.

    Raises:
      DataError: there is no such variant or source, or a file, row, label, id or literal is missing or invalid.
    """
    check_request(CARD, variant, source)
    if source == SAMPLE:
        max_bytes = CARD.variants[variant].max_bytes
        return (Built(split, sample_pairs(split, max_bytes=max_bytes), SAMPLE) for split in SPLITS)
    return _build_official(variant, source_origin(data_dir), progress)


def _build_official(variant: str, origin: Origin, progress: Progress) -> Iterator[Built]:
    texts, pairs = read_pairs(origin, progress)
    label = source_label(_content_sha256(texts, pairs))
    for number, split in enumerate(SPLITS):
        labels, items = pairs[split]
        if variant == "cut" and len(labels) > CUT_PAIRS[split]:
            kept = np.sort(chunk_rng(0, number).permutation(len(labels))[: CUT_PAIRS[split]])
            labels, items = labels[kept], items[kept]
        yield Built(split, pair_split(texts, labels, items, CARD.variants[variant].max_bytes), label)


def pair_split(texts: list[bytes], labels: np.ndarray, items: np.ndarray, max_bytes: int) -> Split:
    """Return the split of pairs of texts, each distinct text cut to `max_bytes` and stored once.

    Args:
      items: int [N, 2], indices into `texts`
    """
    index: dict[bytes, int] = {}
    flat = [index.setdefault(texts[t][:max_bytes], len(index)) for t in items.reshape(-1).tolist()]
    return Split.from_documents(list(index), labels, np.array(flat, np.int32).reshape(-1, 2))


def _content_sha256(texts: list[bytes], pairs: Pairs) -> str:
    """Return the hash of labels and texts (`MAX_BYTES` of each) in the order of the rows, the same for both layouts."""
    digests = np.frombuffer(b"".join(hashlib.sha256(text).digest() for text in texts), np.uint8).reshape(-1, 32)
    content = hashlib.sha256()
    for split in SPLITS:
        labels, items = pairs[split]
        content.update(f"{split} {len(labels)}\n".encode())
        content.update(np.column_stack([labels, digests[items].reshape(-1, 64)]).tobytes())
    return content.hexdigest()
