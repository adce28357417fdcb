"""Retrieval: both layouts give the same pairs, errors name file and row, memory is bounded at full size."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tasks import retrieval
from tasks.core import OFFICIAL, SAMPLE, SPLITS, Split, no_progress
from tasks.errors import DataError
from tasks.retrieval import official

ROOT = Path(__file__).resolve().parents[3]
LRA_PAIRS = {"train": 147_086, "validation": 18_090, "test": 17_437}
LRA_NAME = {"train": "train", "validation": "eval", "test": "test"}

# ---- files --------------------------------------------------------------------------------------------------------

PAPERS = {
    "A00-1001": b"one paper's text\n" * 400,
    "B01-1002": b'another "text" with a \\ and \xc3\xa9\n',
    "C02.x-3": "no ASCII here: äöü ßß".encode() * 10,
    "W03-0004": b"",
}
PAIRS = {
    "train": [(1, "A00-1001", "B01-1002"), (0, "C02.x-3", "A00-1001"), (0, "W03-0004", "B01-1002")],
    "validation": [(1, "B01-1002", "C02.x-3")],
    "test": [(0, "C02.x-3", "C02.x-3"), (1, "A00-1001", "W03-0004")],
}


def with_text() -> dict[str, bytes]:
    return {
        f"new_aan_pairs.{LRA_NAME[split]}.tsv": "".join(
            f"{label}.0\t{a}\t{b}\t{PAPERS[a][:6000]!r}\t{PAPERS[b][:6000]!r}\n" for label, a, b in pairs
        ).encode()
        for split, pairs in PAIRS.items()
    }


def only_ids() -> dict[str, bytes]:
    files = {
        f"new_aan_pairs.{LRA_NAME[split]}.only_ids.tsv": "".join(
            f"{label}.0\t{a}\t{b}\n" for label, a, b in pairs
        ).encode()
        for split, pairs in PAIRS.items()
    }
    return files | {f"papers_text/{paper}.txt": text for paper, text in PAPERS.items()}


def unpack(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def pack(path: Path, files: dict[str, bytes], top: str = "aan/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def built(data_dir: Path, variant: str = "full", source: str = OFFICIAL) -> tuple[dict[str, Split], str]:
    parts = list(retrieval.build(variant, source, data_dir, workers=1, progress=no_progress))
    assert tuple(part.split for part in parts) == SPLITS
    (label,) = {part.source for part in parts}
    return {part.split: part.examples for part in parts}, label


def hashes(splits: dict[str, Split]) -> list[str]:
    return [splits[name].sha256 for name in SPLITS]


def test_every_layout_and_place_gives_the_same_pairs(tmp_path: Path) -> None:
    rows, ids = with_text(), only_ids()
    places = [
        unpack(tmp_path / "rows", rows),
        unpack(tmp_path / "ids", ids),
        unpack(tmp_path / "both", rows | ids),
        unpack(tmp_path / "windows", {name: text.replace(b"\n", b"\r\n") for name, text in rows.items()}),
        unpack(tmp_path / "sub" / "aan", rows).parent,
        unpack(tmp_path / "lra" / "lra_release" / "lra_release" / "tsv_data", rows).parents[2],
        pack(tmp_path / "packed" / "aan.tar.gz", rows).parent,
        pack(tmp_path / "packed_ids" / "my_aan_copy.tar.gz", ids).parent,
        pack(tmp_path / "reverse" / "aan.tar.gz", dict(reversed((rows | ids).items())), "").parent,
        pack(tmp_path / "release" / "lra_release.gz", rows, "lra_release/lra_release/tsv_data/").parent,
    ]
    for place in places:
        splits, label = built(place)
        for name, pairs in PAIRS.items():
            examples = splits[name]
            assert examples.items.shape == (len(pairs), 2)
            got = [
                (y, examples.document(a), examples.document(b))
                for y, (a, b) in zip(examples.labels, examples.items, strict=True)
            ]
            assert got == [(y, PAPERS[a][:4096], PAPERS[b][:4096]) for y, a, b in pairs], place
            used = {paper for _, *both in pairs for paper in both}
            assert len(examples.offsets) - 1 == len(used), "each document once"
        assert label.startswith("unrecognised copy ")
        assert (hashes(splits), label) == (hashes(built(places[0])[0]), built(places[0])[1]), place
        short, short_label = built(place, "cut")
        assert short_label == label
        assert max(np.diff(s.offsets).max() for s in short.values()) == 256


def test_source_label_follows_content(tmp_path: Path) -> None:
    rows = with_text()
    label = built(unpack(tmp_path / "a", rows))[1]
    name = "new_aan_pairs.test.tsv"
    flipped = rows | {name: rows[name].replace(b"1.0\t", b"0.0\t")}
    reworded = rows | {name: rows[name].replace(b"another", b"an0ther").replace(b"ASCII", b"ascii")}
    labels = {label, built(unpack(tmp_path / "b", flipped))[1], built(unpack(tmp_path / "c", reworded))[1]}
    assert len(labels) == 3


def test_one_id_with_two_texts_keeps_both(tmp_path: Path) -> None:
    rows = with_text()
    rows["new_aan_pairs.test.tsv"] = b"0.0\tX\tY\tb'first'\tb'same'\n1.0\tX\tZ\tb'second'\tb'same'\n"
    test = built(unpack(tmp_path, rows))[0]["test"]
    assert [[test.document(d) for d in pair] for pair in test.items] == [[b"first", b"same"], [b"second", b"same"]]
    assert len(test.offsets) - 1 == 3


GOOD = b"1.0\tA\tB\tb'x'\tb'y'\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"1.0\tA\tB\tb'x'\n", "row 3: 4 tab-separated columns, not 5"),
        (b"\n", "row 3: 1 tab-separated columns"),
        (GOOD.replace(b"\n", b"\t\n"), "row 3: 6 tab-separated columns"),
        (b"2.0\tA\tB\tb'x'\tb'y'\n", "row 3, column 1: label '2.0'"),
        (b"\tA\tB\tb'x'\tb'y'\n", "row 3, column 1: label ''"),
        (b"1.0\t\tB\tb'x'\tb'y'\n", "row 3, column 2: '' is not a paper id"),
        (b"1.0\tA\t../B\tb'x'\tb'y'\n", r"row 3, column 3: '../B' is not a paper id"),
        (b"1.0\tA/B\tB\tb'x'\tb'y'\n", "row 3, column 2"),
        (b"1.0\tA\tB\\C\tb'x'\tb'y'\n", "row 3, column 3"),
        (b"1.0\tA\tB\tx\tb'y'\n", "row 3, column 4: position 0"),
        (b"1.0\tA\tB\tb'x'\tb'y\\q'\n", "row 3, column 5: position 3"),
        (b"1.0\tA\tB\tb'x'\tb'y", "row 3, column 5: position 2: the literal is not closed"),
    ],
)
def test_bad_row_names_file_and_row(tmp_path: Path, row: bytes, message: str) -> None:
    files = with_text() | {"new_aan_pairs.eval.tsv": GOOD + GOOD + row}
    with pytest.raises(DataError, match=rf"new_aan_pairs\.eval\.tsv {message}"):
        built(unpack(tmp_path / "d", files))
    pack(tmp_path / "t" / "aan.tar.gz", files)
    with pytest.raises(DataError, match=rf"aan\.tar\.gz: aan/new_aan_pairs\.eval\.tsv {message}"):
        built(tmp_path / "t")


def test_a_row_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "MAX_ROW_BYTES", 1000)
    with pytest.raises(DataError, match=r"train\.tsv row 1: longer than 1,000 bytes"):
        built(unpack(tmp_path, with_text()))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"new_aan_pairs\.train\.tsv.*in .*empty.*storage\.googleapis"):
        built(tmp_path / "empty")
    assert retrieval.locate(tmp_path / "empty") == []
    rows, ids = with_text(), only_ids()
    del rows["new_aan_pairs.eval.tsv"], ids["papers_text/C02.x-3.txt"]
    with pytest.raises(DataError, match=r"no new_aan_pairs\.eval\.tsv"):
        built(unpack(tmp_path / "rows", rows))
    with pytest.raises(DataError, match=r"only_ids\.tsv row 2: no papers_text/C02\.x-3\.txt"):
        built(unpack(tmp_path / "ids", ids))
    with pytest.raises(DataError, match=r"new_aan_pairs\.test\.tsv: the file is empty"):
        built(unpack(tmp_path / "hollow", with_text() | {"new_aan_pairs.test.tsv": b""}))


def test_broken_archives_are_named(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).bytes(20_000)
    whole = pack(tmp_path / "whole" / "aan.tar.gz", with_text() | {"noise": noise}).read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # gzip's checksum of the content
    for number, broken in enumerate((b"", b"no archive", whole[:300], whole[:-9000], whole[:-4], bytes(flipped))):
        place = unpack(tmp_path / str(number), {"aan.tar.gz": broken})
        with pytest.raises(DataError, match=r"aan\.tar\.gz: "):
            built(place)
    for name in ("../evil", "/evil"):
        pack(tmp_path / "evil" / "aan.tar.gz", with_text() | {name: b""}, "")
        with pytest.raises(DataError, match="leads out of the archive"):
            built(tmp_path / "evil")
    pack(tmp_path / "twice" / "aan.tar.gz", with_text() | {"old/new_aan_pairs.test.tsv": GOOD})
    with pytest.raises(DataError, match=r"new_aan_pairs\.test\.tsv is there twice"):
        built(tmp_path / "twice")


def test_valid_names_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="full, cut"):
        retrieval.build("half", SAMPLE, tmp_path, workers=1, progress=no_progress)
    with pytest.raises(DataError, match="official, sample"):
        retrieval.build("full", "generated", tmp_path, workers=1, progress=no_progress)


def test_cut_takes_a_fixed_choice_of_pairs(tmp_path: Path) -> None:
    n = {"train": 30_500, "validation": 1_300, "test": 900}
    files = {
        f"new_aan_pairs.{LRA_NAME[split]}.tsv": "".join(
            f"{i % 2}.0\ta{i}\tb{i}\tb'{i} {split}'\tb'{i // 2}'\n" for i in range(n[split])
        ).encode()
        for split in SPLITS
    }
    splits, label = built(unpack(tmp_path, files), "cut")
    assert {name: len(splits[name]) for name in SPLITS} == {"train": 30_000, "validation": 1_000, "test": 900}
    assert label == built(tmp_path)[1]
    for name in SPLITS:
        first = [int(splits[name].document(a).split()[0]) for a in splits[name].items[:, 0]]
        assert first == sorted(set(first)), "the order of the rows, none twice"
        assert [i % 2 for i in first] == splits[name].labels.tolist()
    assert max(first) == 899
    assert hashes(splits) == hashes(built(tmp_path, "cut")[0])


# ---- the full size ------------------------------------------------------------------------------------------------

MEASURE = """
import json, re, sys
from pathlib import Path
from tasks import retrieval
from tasks.core import no_progress
def memory(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, counts = memory("VmRSS"), {}
for part in retrieval.build("full", "official", Path(sys.argv[1]), workers=1, progress=no_progress):
    counts[part.split] = [len(part.examples), len(part.examples.offsets) - 1]
print(json.dumps({"counts": counts, "grown": memory("VmHWM") - before}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc/self/status")
def test_lra_size_prepares_in_bounded_memory(tmp_path: Path) -> None:
    """LRA's 182,613 pairs of 20,000 papers with short texts; the rows are much larger than the allowed memory."""
    papers, rng, written = 20_000, np.random.RandomState(0), 0
    texts = [f"b'{i:06d} " + "words of a text, " * 30 + "\\n'" for i in range(papers)]
    for split, n in LRA_PAIRS.items():
        with (tmp_path / f"new_aan_pairs.{LRA_NAME[split]}.tsv").open("w") as file:
            first, second = rng.permutation(n) % papers, rng.randint(papers, size=n)
            for i, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
                written += file.write(f"{i % 2}.0\tP{a}\tP{b}\t{texts[a]}\t{texts[b]}\n")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    got = json.loads(done.stdout)
    assert (
        {name: n for name, (n, _) in got["counts"].items()} == LRA_PAIRS == dict(retrieval.CARD.variants["full"].sizes)
    )
    assert got["counts"]["train"][1] == papers
    assert got["grown"] < 80e6 < written / 2, f"{got['grown'] / 1e6:.0f} MB for {written / 1e6:.0f} MB of rows"


# ---- real data ----------------------------------------------------------------------------------------------------


def test_real_pairs(data_dir: Path, tmp_path: Path) -> None:
    archive = data_dir / "aan_mini.tar.gz"
    if not archive.is_file():
        pytest.skip(f"real data: no aan_mini.tar.gz in {data_dir}")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / archive.name).symlink_to(archive)
    splits, label = built(tmp_path / "packed")
    assert [len(splits[name]) for name in SPLITS] == [4_064, 508, 508]
    assert [int(splits[name].labels.sum()) for name in SPLITS] == [2_026, 265, 249]

    ids = tmp_path / "unpacked" / "aan"
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar if "only_ids" in m.name or "papers_text/" in m.name]
        tar.extractall(tmp_path / "unpacked", wanted, filter="data")
    (tmp_path / "unpacked" / "aan_mini").rename(ids)
    from_ids, ids_label = built(tmp_path / "unpacked")
    assert (hashes(from_ids), ids_label) == (hashes(splits), label)

    test = splits["test"]
    assert [test.document(d) for d in test.items[0]] == [
        (ids / "papers_text" / f"{paper}.txt").read_bytes()[:4096] for paper in ("W09-0432", "W07-0717")
    ]
    assert test.labels[0] == 1
