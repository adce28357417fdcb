"""Prepared data for other code bases: LRA's official files, or a tensorflow-datasets directory.

    export(data, card, Path("out"), format="tfds")
    tfds.builder_from_directory("out").as_data_source("train")[0]  # neither writing nor reading needs TensorFlow

The order of the examples is that of the prepared data, so a split by index means the same in both places.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lra.data.prepare import class_names, image_side
from tasks import available, load_task
from tasks.core import Card, Prepared, Progress, Split, quiet
from tasks.errors import DataError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Format = Literal["lra", "tfds"]

_AT_ONCE = 1_000  # examples encoded between two writes of the metadata
_SHARD_BYTES = 1 << 27


def export(
    prepared: Prepared, card: Card, directory: Path, format: Format = "tfds", *, progress: Progress = quiet
) -> Path:
    """Writes all splits to a new directory, whole or not at all.

    Args:
      format: "lra" is LRA's own layout, for the tasks that have one (ListOps, Pathfinder). "tfds" holds, as
        array_record files, {"text", "label"}; for pairs {"text1", "text2", "label"}; for pictures
        {"image": uint8 [R, R, 1], "label"}. Texts are bytes; a ListOps text is the bracket form, `[MAX 2 9 ]`.

    Returns:
      the directory

    Raises:
      DataError: the directory exists, or the task has no such format.
    """
    if format not in get_args(Format):
        raise DataError(f"no export format {format!r}; the formats are {', '.join(get_args(Format))}")
    if directory.exists():
        raise DataError(f"{directory} exists, and an export overwrites nothing: choose a new directory, or delete it")
    if format == "lra" and not hasattr(load_task(card.name), "write_official"):
        having = [task for task in available() if hasattr(load_task(task), "write_official")]
        raise DataError(f"{card.name} has no layout of LRA's to write, only {', '.join(having)} have; take format tfds")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        whole = Path(scratch) / "export"  # a directory of its own, so that it has the usual permissions
        whole.mkdir()
        if format == "lra":
            difficulty = prepared.variant.partition("-")[2]  # of Pathfinder's "32-easy"
            options = {"difficulty": difficulty} if difficulty else {}
            load_task(card.name).write_official(prepared.splits, whole, **options)
        else:
            _write_tfds(prepared, card, whole, progress)
        try:
            whole.rename(directory)
        except OSError as error:
            raise DataError(f"{directory}: cannot take the place of what was put there meanwhile ({error})") from error
    return directory


def _write_tfds(prepared: Prepared, card: Card, directory: Path, progress: Progress) -> None:
    import tensorflow_datasets as tfds

    info = _dataset_info(prepared, card, directory)
    examples = sum(len(split) for split in prepared.splits.values())
    size = sum(
        int(split.lengths.sum()) for split in prepared.splits.values()
    )  # a document of two pairs is written twice
    per_shard = max(1, _SHARD_BYTES * examples // max(1, size))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=per_shard, file_format="array_record")
    writer.initialize_splits(list(prepared.splits))
    done = 0
    for name, split in prepared.splits.items():
        for start in range(0, len(split), _AT_ONCE):
            part = list(_examples(card, split, start, min(start + _AT_ONCE, len(split))))
            writer.add_examples({name: part})
            done += len(part)
            progress(f"export {card.name}", done, examples)
    writer.close_all()


def _dataset_info(prepared: Prepared, card: Card, directory: Path) -> tfds.core.DatasetInfo:
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=list(class_names(prepared, card)))
    features: dict[str, Any]
    keys: Any
    if card.pictures:
        side = image_side(next(iter(prepared.splits.values())))
        image = tfds.features.Tensor(shape=(side, side, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
        features, keys = {"image": image}, "image"
    elif card.pairs:
        features, keys = {"text1": tfds.features.Text(), "text2": tfds.features.Text()}, ("text1", "text2")
    else:
        features, keys = {"text": tfds.features.Text()}, "text"
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
        supervised_keys=(keys, "label"),
        disable_shuffling=True,
        citation=card.citation,
        license=card.licence,
    )


def _examples(card: Card, split: Split, start: int, stop: int) -> Iterator[dict[str, Any]]:
    decode = load_task(card.name).decode if card.name == "listops" else None
    side = image_side(split) if card.pictures else 0
    for items, label in zip(split.items[start:stop], split.labels[start:stop], strict=True):
        documents = [split.document(d) for d in np.atleast_1d(items)]
        if side:
            inputs: dict[str, Any] = {"image": np.frombuffer(documents[0], np.uint8).reshape(side, side, 1)}
        elif card.pairs:
            inputs = {"text1": documents[0], "text2": documents[1]}
        else:
            inputs = {"text": decode(documents[0]) if decode else documents[0]}
        yield {**inputs, "label": int(label)}
