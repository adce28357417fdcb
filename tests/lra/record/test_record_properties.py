"""Records of any content: what is written is read as it was, and whatever else lies there is refused in one way."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lra.errors import RecordError
from lra.record.build import result_of
from lra.record.files import as_text, find, pack, read, unpack, write
from lra.record.schema import RunRecord
from tests.lra.record.test_record import record

WHOLE = record()
PRINTABLE = st.text(max_size=20).filter(str.isprintable)
ODD_TEXT = st.text(min_size=1, max_size=20).filter(lambda text: not text.isprintable())
ODD_NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf])
NUMBERS = st.integers(-(2**62), 2**62) | st.floats(-9e99, 9e99)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | PRINTABLE,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(PRINTABLE, inside, max_size=3),
    max_leaves=8,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=6,
)
PLACES = [(k, inside) for k, v in WHOLE.items() for inside in ("", *(v if isinstance(v, dict) else ()))]


def put(place: tuple[str, str], value: Any) -> dict[str, Any]:
    """The record with one place replaced."""
    changed = copy.deepcopy(WHOLE)
    if place[1]:
        changed[place[0]][place[1]] = value
    else:
        changed[place[0]] = value
    return changed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


def empty(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return place


@given(result=PRINTABLE, options=st.dictionaries(PRINTABLE, VALUES, max_size=3))
@example(result="\u05d0\u0301 \U0001f600 \u00e9", options={"\u043a": ["\u5024", "\U000e0100"]})
def test_what_is_written_is_read(place: Path, result: str, options: dict[str, Any]) -> None:
    written = put(("mixer", "options"), options) | {"message": result}
    made = RunRecord.model_validate(written)
    path = write(empty(place), made)
    assert read(path) == made
    assert read(path).as_json() == written
    assert path.read_text() == json.dumps(written, indent=1) + "\n"
    assert [f.record for f in find([(place, "committed")])] == [made]
    with pytest.raises(FileExistsError):
        write(place, made)
    assert [p.name for p in place.iterdir()] == [path.name]


@given(where=st.sampled_from(PLACES), number=ODD_NUMBERS)
def test_a_number_that_is_none_is_neither_written_nor_read(place: Path, where: tuple[str, str], number: float) -> None:
    for value in (number, [number], {"a": [1, number]}):
        changed = put(where, value)
        with pytest.raises((RecordError, ValueError), match=r"not a finite number|validation error"):
            write(empty(place), RunRecord.model_validate(changed))
        assert not place.exists()
        place.mkdir()
        (place / "a.json").write_text(json.dumps(changed))
        with pytest.raises(RecordError, match=r"a\.json: not a record: .*not a finite number"):
            read(place / "a.json")


@given(text=ODD_TEXT)
@example(text="\ud800")
@example(text="\x1b[31m")
@example(text="\u202e")
def test_a_text_that_a_terminal_would_obey_is_not_read(place: Path, text: str) -> None:
    for changed in (put(("message", ""), text), put(("mixer", "options"), {text: 1}), put(("column", "source"), text)):
        empty(place).mkdir()
        path = place / "x.json"
        path.write_text(json.dumps(changed))
        with pytest.raises(RecordError, match="cannot be printed"):
            read(path)


@given(content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(content=b"[" * 100_000)
@example(content=b'{"a": ' * 10_000)
@example(content=json.dumps(WHOLE).encode()[:-1])
@example(content=b"\xff\xfe{\0}\0")
def test_any_other_file_is_refused(place: Path, content: bytes) -> None:
    empty(place).mkdir()
    (place / "x.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.json: not a record: "):
        read(place / "x.json")
    assert find([(place, "committed")]) == []


@settings(max_examples=200)
@given(where=st.sampled_from(PLACES), value=JSON)
def test_any_value_in_any_place_is_read_or_refused(place: Path, where: tuple[str, str], value: Any) -> None:
    """What is read has all that others ask of it: here, that it can be found."""
    changed = put(where, value)
    empty(place).mkdir()
    (place / "x.json").write_text(json.dumps(changed))
    try:
        record = read(place / "x.json")
    except RecordError:
        return
    assert as_text(record) == json.dumps(changed, indent=1) + "\n"
    (found,) = find([(place, "committed")])
    assert found.record == record
    assert write(place / "again", record).suffix == ".json"


@given(values=arrays(np.uint8, st.integers(0, 300)), other=st.integers(0, 310))
def test_packing_loses_nothing_and_unpacking_takes_nothing_else(values: np.ndarray, other: int) -> None:
    text = pack(values)
    np.testing.assert_array_equal(unpack(text, len(values)), values)
    if other != len(values):
        with pytest.raises(ValueError, match="not "):
            unpack(text, other)


@given(text=st.text(max_size=40) | st.binary(max_size=40).map(lambda b: pack(np.frombuffer(b, np.uint8))[:-4]))
def test_what_is_not_packed_does_not_unpack(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):  # base64 and zlib have words of their own
        unpack(text, 3)


@given(data=st.data(), classes=st.integers(1, 12))
def test_scores_are_counts_of_the_same_thing(data: st.DataObject, classes: int) -> None:
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=50))
    labels, predictions = (np.array(side, np.uint8) for side in zip(*pairs, strict=True))
    result = result_of(predictions, labels, classes)
    assert result.confusion == [[pairs.count((a, b)) for b in range(classes)] for a in range(classes)]
    assert result.correct == sum(a == b for a, b in pairs)
    assert (result.count, result.accuracy) == (len(pairs), result.correct / len(pairs))
    np.testing.assert_array_equal(unpack(result.predictions, len(pairs)), predictions)
    bits = np.unpackbits(unpack(result.correct_bits, -(-len(pairs) // 8)), count=len(pairs))
    assert bits.tolist() == [a == b for a, b in pairs]
