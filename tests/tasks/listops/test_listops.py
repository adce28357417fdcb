"""ListOps: its splits, and LRA's files, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks import listops
from tasks.core import GENERATED, OFFICIAL, SAMPLE, SPLITS, Split
from tasks.errors import DataError

SHORT: dict[str, Any] = {"min_length": 15, "max_length": 256}
EXAMPLE = "[MAX 2 9 [MIN 4 7 ] 0 ]"
EXAMPLE_OFFICIAL = "( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )"


# ---- the task


def test_the_short_variant_is_complete_balanced_and_without_duplicates() -> None:
    card = listops.CARD
    seen: list[tuple[int, int]] = []
    built = list(listops.build("short", GENERATED, Path(), progress=lambda _, done, total: seen.append((done, total))))
    assert [part.split for part in built] == list(SPLITS)
    assert [part.examples.sha256[:8] for part in built] == [
        "1a1a85f3",
        "421b0beb",
        "b7b3824a",
    ]  # else raise the version
    assert {part.split: len(part.examples) for part in built} == card.variants["short"].sizes
    assert seen[-1] == (32_000, 32_000)
    documents = [part.examples.document(d) for part in built for d in range(len(part.examples))]
    assert len(set(documents)) == len(documents)
    lengths = [len(document) for document in documents]
    assert min(lengths) == 16
    assert max(lengths) == 255 == card.variants["short"].max_bytes
    test = built[2].examples
    assert [listops.evaluate(listops.decode(test.document(d))) for d in range(len(test))] == test.labels.tolist()


@pytest.mark.parametrize("variant", ["full", "short"])
def test_the_sample_is_small_and_not_a_part_of_the_data(variant: str) -> None:
    built = list(listops.build(variant, SAMPLE, Path()))
    assert [len(part.examples) for part in built] == [1_000, 200, 200]
    sample = {listops.decode(part.examples.document(d)) for part in built for d in range(len(part.examples))}
    assert len(sample) == 1_400
    limits: dict[str, Any] = {} if variant == "full" else SHORT
    seed = {"full": 1804, "short": 1806}[variant]
    assert sample.isdisjoint(listops.generate(3_000, seed=seed, **limits)[0])


def test_an_unknown_variant_or_source_names_the_valid_ones() -> None:
    for variant, source in (("long", GENERATED), ("full", "tfds")):
        with pytest.raises(DataError, match="variants: full, short; sources: generated, official, sample"):
            next(iter(listops.build(variant, source, Path())))
    with pytest.raises(DataError, match="short is generated"):
        next(iter(listops.build("short", OFFICIAL, Path())))


# ---- LRA's files


def rows(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\r\n" for line in ("Source\tTarget", *lines)).encode())


def official_files(directory: Path, *lines: str) -> None:
    for name in ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv"):
        rows(directory / name, *lines)


def test_the_files_are_written_as_the_reference_writes_them(tmp_path: Path) -> None:
    example = Split.from_documents([listops.encode(EXAMPLE), listops.encode("[SM 9 2 ]")], [9, 1])
    listops.write_official({"validation": example}, tmp_path / "new")
    text = f"Source\tTarget\r\n{EXAMPLE_OFFICIAL}\t9\r\n( ( ( [SM 9 ) 2 ) ] )\t1\r\n"
    assert (tmp_path / "new" / "basic_val.tsv").read_bytes() == text.encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["basic_val.tsv"]


def test_written_files_are_read_back(tmp_path: Path) -> None:
    sample = {part.split: part.examples for part in listops.build("full", SAMPLE, tmp_path)}
    listops.write_official(sample, tmp_path / "listops")
    built = list(listops.build("full", OFFICIAL, tmp_path))
    assert {part.split: part.examples.sha256 for part in built} == {k: s.sha256 for k, s in sample.items()}
    assert len({part.source for part in built}) == 1
    assert built[0].source.startswith("unrecognised copy ")


@pytest.mark.parametrize("folder", ["", "listops", "listops-1000", "lra_release/lra_release/listops-1000"])
def test_the_files_are_found_and_named_by_their_content(tmp_path: Path, folder: str) -> None:
    assert listops.locate(tmp_path) == []
    official_files(tmp_path / folder, f"{EXAMPLE_OFFICIAL}\t9")
    assert [origin.path for origin in listops.locate(tmp_path)] == [tmp_path / folder]
    before = next(iter(listops.build("full", OFFICIAL, tmp_path))).source
    rows(tmp_path / folder / "basic_test.tsv", "( ( ( [SM 9 ) 2 ) ] )\t1")
    assert next(iter(listops.build("full", OFFICIAL, tmp_path))).source != before


def test_a_release_without_parentheses_and_with_plain_line_ends_is_read(tmp_path: Path) -> None:
    official_files(tmp_path)
    (tmp_path / "basic_train.tsv").write_text(f"Source\tTarget\n{EXAMPLE}\t9", newline="")
    train = next(iter(listops.build("full", OFFICIAL, tmp_path))).examples
    assert train.document(0) == listops.encode(EXAMPLE)
    assert train.labels.tolist() == [9]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{EXAMPLE_OFFICIAL}\t8", "the target is 8, but the value of the expression is 9"),
        (f"{EXAMPLE_OFFICIAL}\t10", "the target is '10', not a digit"),
        (f"{EXAMPLE_OFFICIAL}\t9\t9", "not a digit"),
        (EXAMPLE_OFFICIAL, "the target is '', not a digit; is the row complete"),
        ("", "not a digit"),
        ("\t9", "empty"),
        ("( ( ( [MAX 2 ) X ) ] )\t2", "character 16: 'X' is not one of"),
        ("( ( ( [MAX 2 ) ß ) ] )\t2", "character 16"),
        ("( ( ( [MAX 2 ) 9 )\t9", "character 7: '[MAX' is never closed"),
        ("MAX 2 9\t9", "character 1: 'MAX' is not one of"),
        ("[SM " + "0 " * 2_000 + "]\t0", "2002 symbols"),
    ],
)
def test_a_broken_row_is_named_with_its_file(tmp_path: Path, row: str, message: str) -> None:
    official_files(tmp_path, f"{EXAMPLE_OFFICIAL}\t9")
    rows(tmp_path / "basic_val.tsv", f"{EXAMPLE_OFFICIAL}\t9", row, f"{EXAMPLE_OFFICIAL}\t9")
    with pytest.raises(DataError) as error:
        list(listops.build("full", OFFICIAL, tmp_path))
    assert str(error.value).startswith(f"{tmp_path / 'basic_val.tsv'}, row 3 ")
    assert message in str(error.value)


def test_missing_files_and_headers_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        list(listops.build("full", OFFICIAL, tmp_path))
    for part in ("basic_train.tsv", str(tmp_path / "listops-1000"), listops.CARD.obtain):
        assert part in str(error.value)
    official_files(tmp_path, f"{EXAMPLE_OFFICIAL}\t9")
    (tmp_path / "basic_test.tsv").write_text(f"{EXAMPLE_OFFICIAL}\t9\n")
    with pytest.raises(DataError, match=r"basic_test.tsv, row 1: .* is not the header"):
        list(listops.build("full", OFFICIAL, tmp_path))
    (tmp_path / "basic_test.tsv").unlink()
    with pytest.raises(DataError, match=r"basic_test.tsv is missing"):
        list(listops.build("full", OFFICIAL, tmp_path))
