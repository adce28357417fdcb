"""Malicious archives are refused by each reader: names that lead out, links, bombs, false sizes."""

from __future__ import annotations

import gzip
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import archives, image, text
from tasks.core import no_progress
from tasks.errors import DataError
from tasks.origins import Origin
from tasks.retrieval import official
from tasks.retrieval.official import read_pairs

READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (text.read, "aclImdb/train/neg/0_1.txt"),
    "image": (image.read, f"{image.ARCHIVE.folder}/data_batch_1.bin"),
    "retrieval": (lambda path: read_pairs(Origin(path), no_progress), "aan/new_aan_pairs.train.only_ids.tsv"),
}
BIG = 100_000_000  # bytes of zeros: a thousandth of it in the archive
MUCH = 10_000_000  # bytes of memory

Part = bytes | int


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member.tobuf(tarfile.GNU_FORMAT)  # which writes sizes of any length


def pax(**records: str) -> bytes:
    """Return the extended header of the next member."""
    member = tarfile.TarInfo("x")
    member.pax_headers = {key.replace("_", "."): value for key, value in records.items()}
    return member.tobuf(tarfile.PAX_FORMAT)[:-512]


def old_sparse(name: str, real: int) -> bytes:
    """Return GNU's header of a sparse file without content."""
    block = bytearray(header(name, tarfile.GNUTYPE_SPARSE))
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def packed(path: Path, *parts: Part) -> Path:
    """Write a gzipped tar of these blocks, filled up to complete blocks; a number means that many zeros."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in (*parts, 1024):
            size = part if isinstance(part, int) else len(part)
            for _ in range(size // 1_000_000 if isinstance(part, int) else 0):
                file.write(bytes(1_000_000))
            file.write(bytes(size % 1_000_000) if isinstance(part, int) else part)
            file.write(bytes(-size % 512))
    return path


@pytest.fixture(params=READERS.values(), ids=READERS)
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., str]:
    """Return a function that reads an archive, checks memory and time, and returns the message of the error."""
    reader, name = request.param

    def refused(make: Callable[[str], tuple[Part, ...]]) -> str:
        path = packed(tmp_path / "a.tar.gz", *make(name))
        begun = time.monotonic()
        tracemalloc.start()
        try:
            with pytest.raises(DataError) as error:
                reader(path)
            assert tracemalloc.get_traced_memory()[1] < MUCH
        finally:
            tracemalloc.stop()
        assert time.monotonic() - begun < 20
        assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]  # nothing was written beside it
        return str(error.value)

    return refused


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_only_a_regular_file_is_read(read: Callable[..., str], kind: bytes) -> None:
    assert (
        "regular file" in (message := read(lambda name: (header(name, kind, link="/etc/passwd"),)))
        or "no new_" in message
    )


@pytest.mark.parametrize("name", ["/etc/motd", "../out", "aclImdb/../../out", "a/.."])
def test_a_name_that_leads_out_of_the_archive_is_refused(read: Callable[..., str], name: str) -> None:
    assert "leads out of the archive" in read(lambda _: (header(name),))
    assert "leads out of the archive" in read(lambda _: (pax(path=name), header("in")))


def test_false_sizes_are_refused(read: Callable[..., str]) -> None:
    """Only the content of the archive is read, whatever size a header claims."""
    assert (message := read(lambda name: (header(name, size=1 << 70),)))
    assert "end" in message or "unpacks to more than" in message
    assert "end" in read(lambda name: (header("other", size=1 << 70), header(name)))
    assert "end" in read(lambda name: (pax(size=str(1 << 70)), header("other")))
    assert read(lambda name: (header(name, size=-1024),))
    assert read(lambda name: (pax(size="-1024"), header(name)))


def test_sparse_files_are_refused(read: Callable[..., str]) -> None:
    hole = {"GNU_sparse_size": str(1 << 40), "GNU_sparse_map": "0,0"}
    later = {"GNU_sparse_major": "1", "GNU_sparse_minor": "0", "GNU_sparse_realsize": str(1 << 40)}
    for make in (
        lambda name: (old_sparse(name, 1 << 33),),
        lambda name: (pax(**hole, GNU_sparse_name=name), header(name)),
        lambda name: (pax(**later, GNU_sparse_name=name), header(name, size=512), b"1\n0\n0\n"),
    ):
        assert "regular file" in (message := read(make)) or "no new_" in message


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_large_header_is_refused(read: Callable[..., str], kind: bytes) -> None:
    assert "a header of more than 16,384 bytes" in read(lambda name: (header("x", kind, BIG), BIG, header(name)))


def test_endless_headers_are_refused(read: Callable[..., str]) -> None:
    chain = b"".join([pax(comment="x")] * 2_000)
    assert "a header of more than" in read(lambda name: (chain, header(name)))
    numbers = {"GNU_sparse_major": "1", "GNU_sparse_minor": "0"}
    assert "a header of more than" in read(lambda name: (pax(**numbers), header(name), b"9999999\n" + b"1\n" * 200_000))


def test_large_content_is_refused(read: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Content of other members is not kept, and that of wanted ones has a limit."""
    monkeypatch.setattr(text, "MAX_BYTES", MUCH // 4)
    monkeypatch.setattr(image, "RECORDS", 100)
    monkeypatch.setattr(official, "MAX_ROW_BYTES", MUCH // 4)
    assert "than" in read(lambda name: (header(name, size=BIG), BIG))
    assert "leads out" in read(lambda name: (header("other", size=BIG), BIG, header("../x")))


def test_many_members_are_not_kept(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz", header("other") * 6_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in archives.walk(path, "")) == 6_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_paper_with_an_undecodable_name_is_read(tmp_path: Path) -> None:
    paper = bytearray(header("aan/papers_text/?.txt"))
    paper[paper.index(b"?")] = 0xFF
    paper[148:156] = b" " * 8
    paper[148:156] = b"%06o\0 " % sum(paper)
    row = b"0.0\t\xff\t\xff\n"
    files = [header(f"aan/new_aan_pairs.{part}.only_ids.tsv", size=len(row)) for part in ("train", "eval", "test")]
    parts = [part for file in files for part in (file, row)]
    texts, pairs = read_pairs(Origin(packed(tmp_path / "aan.tar.gz", *parts, bytes(paper))), no_progress)
    assert texts == [b""]
    assert pairs["test"][1].tolist() == [[0, 0]]


@pytest.mark.parametrize("stars", ["9" * 5_000, "\u0663"], ids=["more digits than an int may have", "another script"])
def test_stars_must_be_a_number(tmp_path: Path, stars: str) -> None:
    parts = pax(path=f"aclImdb/train/neg/0_{stars}.txt"), header("x", size=1), b"x"
    assert text.read(packed(tmp_path / "a.tar.gz", *parts)) == {"train": [], "test": []}
