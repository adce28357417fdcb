"""Official archives are downloaded once, checked, and end with one message where the server does not send them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import archives
from tasks.core import no_progress
from tasks.errors import DataError

SHA256 = hashlib.sha256(b"content").hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache of tensorflow-datasets, in tmp_path."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "tfds" / "downloads"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve a small file at a local address."""
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "small.tar.gz").write_bytes(b"content")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "srv"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/small.tar.gz"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Accept connections, send an answer, and then nothing; the connections stay open."""
    connections = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/small.tar.gz"
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


def test_an_archive_is_checked_and_cached(served: str, tmp_path: Path, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    got = archives.Archive(served, "", 7, SHA256).fetch(tmp_path, lambda _, done, total: seen.append((done, total)))
    assert got.read_bytes() == b"content"
    assert list(cache.iterdir()) == [got]
    assert seen == [(0, 7), (7, 7)]
    (tmp_path / "srv" / "small.tar.gz").unlink()
    assert archives.Archive(served, "", 7, SHA256).fetch(tmp_path, no_progress) == got, "the second time from the cache"


@pytest.mark.parametrize(
    ("name", "sha256", "reason"),
    [("small", "0" * 64, "another file than the published one"), ("other", SHA256, "HTTP Error 404")],
)
def test_another_file_or_none(served: str, tmp_path: Path, cache: Path, name: str, sha256: str, reason: str) -> None:
    archive = archives.Archive(served.replace("small", name), "", 7, sha256)
    with pytest.raises(DataError, match=rf"could not be fetched.*{reason}.*choose the source official") as caught:
        archive.fetch(tmp_path, no_progress)
    assert f"put it into {tmp_path} as {name}.tar.gz" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "timed out"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncon", "timed out"),
        (b"no HTTP\r\n\r\n", "no HTTP"),
    ],
)
def test_a_server_that_does_not_answer(
    answer: bytes, reason: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "TIMEOUT", 0.2)
    with answering(answer) as url, pytest.raises(DataError, match=rf"could not be fetched .*{reason}"):
        archives.Archive(url, "", 7, SHA256).fetch(tmp_path, no_progress)
    assert list(cache.iterdir()) == []
