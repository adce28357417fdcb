"""Files of result records, one JSON object each.

`runs/` holds the records of this machine, `results/` those that are committed. A file is written as a whole and never
replaced. One that comes from elsewhere may be meant to deceive: its size, depth and characters are limited here.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from lra.errors import RecordError, RunError
from lra.paths import results_directory, runs_directory
from lra.record.schema import Header, Record
from lra.typed_json import place_of, short_repr
from lra.typed_json import problems as refused
from tasks.errors import did_you_mean

MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_PROBLEMS = 32 * 2**20, 1_000_000, 12, 12
LARGEST = 1e100  # of a float: what is computed with it must not overflow

KINDS = ("run", "floor", "tuning")
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])

Origin = Literal["yours", "committed"]
R = TypeVar("R", bound=Header, covariant=True)


def pack(values: np.ndarray) -> str:
    """Return uint8 values as text: zlib, base 64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, np.uint8).tobytes(), 9)).decode()


def unpack(text: str, size: int) -> np.ndarray:
    """Return the `size` uint8 values of a text of `pack`; no more are unpacked, however large the content is.

    Raises:
      ValueError: the text is not of `pack`, or has another number of values.
    """
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(text, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"not {size:,} bytes")
    return np.frombuffer(raw, np.uint8)


def run_directory(name: str) -> Path:
    """Return the directory of a run, by its name in `runs/` or its path.

    Raises:
      RunError: there is no such run; the message lists those that there are
    """
    directory = Path(name) if Path(name).is_dir() else runs_directory() / name
    if not ((directory / "config.json").exists() or (directory / "records").is_dir()):
        paths = [*runs_directory().glob("*/config.json"), *runs_directory().glob("*/records")]
        names = sorted({path.parent.name for path in paths})
        listed = ", ".join(names) or "none"
        raise RunError(f"no run {name!r}{did_you_mean(name, names)} in {runs_directory()}; the runs are: {listed}")
    return directory


def complete_record_path(run: Path) -> Path:
    """Return the path of the record of a run in its directory, once it is complete."""
    return run / "records" / f"{run.name}.json"


def as_text(record: Record) -> str:
    """Return the content of a record's file.

    Raises:
      RecordError: `parse` would refuse it, as for a number that is not finite
    """
    text = json.dumps(record.as_json(), indent=1) + "\n"
    _, problems = parse(text)
    if problems:
        raise RecordError(f"the record of {record.id} could not be read again: {'; '.join(problems[:MAX_PROBLEMS])}")
    return text


def write(directory: Path, record: Record) -> Path:
    """Write a record under its own name (`Record.file_name`), as a whole or not at all, and flush it to the disk.

    Raises:
      FileExistsError: a file of this name exists; it is never replaced.
      RecordError: see `as_text`.
    """
    text = as_text(record)
    target = directory / record.file_name
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / f".{target.stem}.{os.getpid()}.partial"
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, target)  # unlike a rename, never replaces a file, whatever another process does
        except FileExistsError:
            raise
        except OSError:  # exFAT, Google Drive and others have no hard links
            if target.exists():
                raise FileExistsError(errno.EEXIST, "a record of this name exists", str(target)) from None
            scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return target


def read(path: Path) -> Record:
    """Read a record.

    Raises:
      RecordError: the file is not JSON within the limits, or not a record of this schema.
    """
    record, problems = load(path)
    if record is None:
        raise RecordError(f"{path}: not a record: {'; '.join(problems[:MAX_PROBLEMS])}")
    return record


def load(path: Path) -> tuple[Record | None, list[str]]:
    """Return the record in a file, or None and what is wrong with it."""
    try:
        if path.is_symlink() or not path.is_file():
            return None, ["not a regular file"]
        if (size := path.stat().st_size) > MAX_BYTES:
            return None, [f"{size:,} bytes; a record has at most {MAX_BYTES:,}"]
        return parse(path.read_text("utf-8"))
    except (OSError, UnicodeError) as error:
        return None, [f"not readable: {error}"]


def parse(text: str) -> tuple[Record | None, list[str]]:
    """Return the record that a JSON text states, or None and what is wrong with it."""
    try:
        fields = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        return None, [f"nested deeper than {MAX_DEPTH}"]
    except ValueError as error:
        return None, ["the file is empty" if not text.strip() else f"not readable as JSON: {error}"]
    if not isinstance(fields, dict):
        return None, ["not a record: no object"]
    if problems := _beyond_limits(fields):
        return None, problems
    if (kind := fields.get("kind")) not in KINDS:
        return None, [f"kind is {short_repr(kind)}, not {' or '.join(KINDS)}"]
    try:
        return _RECORD.validate_python(fields), []
    except ValidationError as error:
        return None, refused(error, skip=1)  # places begin with the kind


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{short_repr(repeated)} occurs twice in one object")
    return fields


def _beyond_limits(fields: dict[str, Any]) -> list[str]:
    """Return what is too deep, too much, not finite or not printable."""
    problems: list[str] = []
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), fields)]
    for seen in range(MAX_VALUES):
        if not waiting or len(problems) > MAX_PROBLEMS:
            return problems
        names, value = waiting.pop()
        if len(names) > MAX_DEPTH:
            return [f"{place_of(names)[:80]}: nested deeper than {MAX_DEPTH}"]
        if isinstance(value, dict):
            waiting += [((*names, name), inside) for name, inside in value.items()]
            unprintable = [short_repr(name) for name in value if not name.isprintable()]
            problems += [f"{place_of(names)}: the name {name} cannot be printed" for name in unprintable]
        elif isinstance(value, list):
            if len(value) > MAX_VALUES - seen:
                break
            waiting += [((*names, i), inside) for i, inside in enumerate(value)]
        elif isinstance(value, str):
            if not value.isprintable():
                problems.append(f"{place_of(names)} has characters that cannot be printed")
        elif isinstance(value, int | float):
            most = LARGEST if isinstance(value, float) else 2**63
            if not -most < value < most:
                problems.append(f"{place_of(names)} is {short_repr(value)}, not a finite number")
    return [f"more than {MAX_VALUES:,} values"]


@dataclasses.dataclass(frozen=True)
class RecordFile(Generic[R]):
    """A record and where it was found.

    Attributes:
      trials: learning rates that were tried before this run's was chosen on validation
    """

    record: R
    origin: Origin
    path: Path
    trials: int = 0


def of_kind(files: Iterable[RecordFile[Record]], kind: type[R]) -> list[RecordFile[R]]:
    """Return the files whose records are of a class, as `RunRecord`."""
    return [f for f in files if isinstance(f.record, kind)]  # type: ignore[misc]


def find(directories: Iterable[tuple[Path, Origin]] | None = None) -> list[RecordFile[Record]]:
    """Return all records of `runs/` and `results/`, without truncated ones whose run has come further.

    A JSON file that is not a record is reported on standard error and left out.
    """
    if directories is None:
        directories = [(results_directory(), "committed"), (runs_directory(), "yours")]
    newest: list[RecordFile[Record]] = []
    for directory, origin in directories:
        paths = directory.rglob("*.json") if origin == "committed" else directory.glob("*/records/*.json")
        files: list[RecordFile[Record]] = []
        for path in sorted(path for path in paths if not path.name.startswith(".")):
            record, problems = load(path)
            if record is not None:
                files.append(RecordFile(record, origin, path))
            else:
                what = "; ".join(problems[:MAX_PROBLEMS])
                print(f"warning: {path} is left out, because it is not a record: {what}", file=sys.stderr)
        furthest: dict[str, int] = {}
        for f in files:
            furthest[f.record.id] = max(furthest.get(f.record.id, 0), f.record.steps_done)
        newest += [f for f in files if f.record.steps_done == furthest[f.record.id]]
    return newest
