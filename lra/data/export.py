"""Export of prepared data for other code bases: LRA's official files, or a tensorflow-datasets directory.

    export(prepared, card, Path("out"), format="tfds")
    tfds.builder_from_directory("out").as_data_source("train")[0]  # neither writing nor reading needs TensorFlow

Examples keep their order, so a split by index means the same in both places.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lra.data.prepare import class_names, image_side
from tasks import available, load_task
from tasks.core import Card, Prepared, Progress, Split, no_progress
from tasks.errors import DataError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Format = Literal["lra", "tfds"]

_BLOCK = 1_000  # examples encoded between two writes of the metadata
_SHARD_BYTES = 1 << 27


def export(
    prepared: Prepared, card: Card, directory: Path, format: Format = "tfds", *, progress: Progress = no_progress
) -> Path:
    """Write all splits to a new directory, completely or not at all, and return it.

    Args:
      format: "lra" is LRA's own layout, for the tasks that have one (`Card.write_official`). "tfds" stores array_record
        files of {"text", "label"}, for pairs of {"text1", "text2", "label"}, and for images of
        {"image": uint8 [R, R, 1], "label"}. Texts are bytes: those of the document, or what `Card.to_text` makes of it

    Raises:
      DataError: the directory exists, or the task has no such format.
    """
    if format not in get_args(Format):
        raise DataError(f"no export format {format!r}; the formats are {', '.join(get_args(Format))}")
    if directory.exists():
        raise DataError(f"{directory} exists; choose a new directory, or delete it")
    if format == "lra" and card.write_official is None:
        others = [task for task in available() if load_task(task).CARD.write_official is not None]
        raise DataError(f"{card.name} has no layout of LRA's, only {', '.join(others)} have; use the format tfds")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        complete = Path(scratch) / "export"  # the scratch directory itself does not have the usual permissions
        complete.mkdir()
        if format == "lra" and card.write_official is not None:
            card.write_official(prepared.splits, complete, prepared.variant)
        else:
            _write_tfds(prepared, card, complete, progress)
        try:
            complete.rename(directory)
        except OSError as error:
            raise DataError(f"{directory}: cannot be replaced, it was created during the export ({error})") from error
    return directory


def _write_tfds(prepared: Prepared, card: Card, directory: Path, progress: Progress) -> None:
    import tensorflow_datasets as tfds

    info = _dataset_info(prepared, card, directory)
    examples = sum(len(split) for split in prepared.splits.values())
    size = sum(int(split.lengths.sum()) for split in prepared.splits.values())  # documents are written for each example
    per_shard = max(1, _SHARD_BYTES * examples // max(1, size))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=per_shard, file_format="array_record")
    writer.initialize_splits(list(prepared.splits))
    done = 0
    for name, split in prepared.splits.items():
        for start in range(0, len(split), _BLOCK):
            block = list(_examples(card, split, start, min(start + _BLOCK, len(split))))
            writer.add_examples({name: block})
            done += len(block)
            progress(f"export {card.name}", done, examples)
    writer.close_all()


def _dataset_info(prepared: Prepared, card: Card, directory: Path) -> tfds.core.DatasetInfo:
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=list(class_names(prepared, card)))
    features: dict[str, Any]
    if card.images:
        side = image_side(next(iter(prepared.splits.values())))
        image = tfds.features.Tensor(shape=(side, side, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
        features = {"image": image}
    else:
        features = {name: tfds.features.Text() for name in (("text1", "text2") if card.pairs else ("text",))}
    return tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=f"lra_{card.name}",
            version=tfds.core.Version(f"{prepared.version}.0.0"),
            data_dir=str(directory),
            module_name="",
            config_name=prepared.column_variant,
            config_description=card.variants[prepared.variant].about,
        ),
        description=f"{card.title}: {card.about}\nSource: {prepared.source}. SHA-256 of the content: {prepared.sha256}",
        features=tfds.features.FeaturesDict({**features, "label": label}),
        supervised_keys=(tuple(features) if card.pairs else next(iter(features)), "label"),
        disable_shuffling=True,
        citation=card.citation,
        license=card.licence,
    )


def _examples(card: Card, split: Split, start: int, stop: int) -> Iterator[dict[str, Any]]:
    side = image_side(split) if card.images else 0
    for items, label in zip(split.items[start:stop], split.labels[start:stop], strict=True):
        documents = [split.document(d) for d in np.atleast_1d(items)]
        if card.images:
            inputs: dict[str, Any] = {"image": np.frombuffer(documents[0], np.uint8).reshape(side, side, 1)}
        else:
            texts = [card.to_text(document) if card.to_text else document for document in documents]
            inputs = dict(zip(("text1", "text2") if card.pairs else ("text",), texts, strict=True))
        yield {**inputs, "label": int(label)}
