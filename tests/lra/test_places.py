"""Directories that cannot be used, file systems that lack something, and files that others left behind."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import jax
import pytest

import run_lra
from lra import api
from lra.paths import explain, unwritable
from lra.record import files
from lra.runtime import devices
from lra.runtime.signals import stop_on_signal
from tests.lra.record.test_record import written
from tests.lra.record.test_record_fields import prepared


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)


def test_without_hard_links_a_record_is_written_and_never_replaced(tmp_path: Path, no_hard_links: None) -> None:
    record = written()
    path = files.write(tmp_path, record)
    assert files.read(path) == record
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        files.write(tmp_path, record)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_is_flushed_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: flushed.append(any(tmp_path.glob("[!.]*.json"))))
    files.write(tmp_path, written())
    assert flushed == [False]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b'{"kind": "run"}', b"\xff\xfe", b'{"name": "another program"}']
)
def test_a_file_that_is_no_record_is_named_and_the_others_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    for name in ("LRA_RUNS", "LRA_RESULTS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    record = written()
    path = files.write(tmp_path / "LRA_RUNS" / "good" / "records", record)
    bad = path.parent.parent.parent / "bad" / "records" / "x.json"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(content)
    assert run_lra.main(["leaderboard", "--format", "csv"]) == 0
    output = capsys.readouterr()
    assert "cosformer" in output.out
    assert f"warning: {bad} is left out, because it is not a record: " in output.err
    assert run_lra.main(["validate", str(bad)]) == 1


def test_an_error_of_the_file_system_is_one_line_with_the_variable_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the directory should be fails for every user, also for root."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "file" / "runs"))
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    words = ["--task", "listops", "--mixer", "linear", "--protocol", "quick", "--train.steps", "1", "--max-len", "16"]
    assert run_lra.main(["train", *words]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/file/runs/")
    assert line.endswith("Not a directory; set LRA_RUNS to a directory that can be used")


def test_other_errors_of_the_file_system_keep_their_advice(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert explain(full) == "No space left on device; free some space, or choose another place"
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))
    assert explain(denied) == f"{tmp_path}/x: Permission denied; change its permissions, or choose another place"
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "x"))
    assert explain(missing) == f"{tmp_path}/x: No such file or directory; check the path"
    assert explain(OSError(errno.ECONNREFUSED, "Connection refused")) is None


@pytest.fixture
def cache_settings() -> Any:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_users_compilation_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_settings: None
) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))  # as JAX does when it is imported
    monkeypatch.setattr(devices, "ROOT", tmp_path / "project")
    devices.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")  # type: ignore[attr-defined]
    assert not (tmp_path / "project").exists()


def test_the_projects_compilation_cache_does_not_grow_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_settings: None
) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(devices, "ROOT", tmp_path)
    monkeypatch.setattr(devices, "CACHE_BYTES", 250)
    folder = tmp_path / ".cache" / "xla"
    folder.mkdir(parents=True)
    for age in range(4):
        (folder / f"{age}-cache").write_bytes(b"x" * 100)
        os.utime(folder / f"{age}-cache", (1e9 - age, 1e9 - age))
    devices.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder)  # type: ignore[attr-defined]
    assert sorted(path.name for path in folder.iterdir()) == ["0-cache", "1-cache"]


def test_a_compilation_cache_that_cannot_be_written_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache_settings: None
) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / ".cache").write_text("")
    monkeypatch.setattr(devices, "ROOT", tmp_path)
    devices.use_compilation_cache()
    assert capsys.readouterr().err == (
        f"note: compiled functions are not kept, because {tmp_path}/.cache/xla cannot be written (Not a directory); "
        "set JAX_COMPILATION_CACHE_DIR to a directory that can be written, and later runs start faster\n"
    )
    assert not jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]


def test_a_run_needs_nothing_that_macos_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no affinity of processes to cores, and no /proc."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(os, "process_cpu_count", os.cpu_count, raising=False)  # of Python 3.13, as on macOS
    read_text = Path.read_text

    def no_proc(path: Path, *arguments: Any, **more: Any) -> str:
        if path.is_relative_to("/proc"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return read_text(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", no_proc)
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    monkeypatch.setattr(api, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(api, "prepare", lambda *_, **__: prepared())
    sizes = {"model.layers": 1, "model.d_model": 4, "model.qkv_dim": 4, "model.heads": 1, "model.mlp_dim": 4}
    steps = {"train.steps": 2, "train.eval_every": 2, "train.batch_size": 4, "max_len": 2}
    record = api.run("listops", "linear", protocol="quick", limit=8, overrides={**sizes, **steps})
    assert (record.status, record.peak_bytes) == ("complete", None)
    assert files.read(tmp_path / record.id / "records" / record.file_name) == record


def test_a_directory_that_can_be_written_is_left_empty(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "a" / "b") == ""
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_closed_terminal_stops_a_run_unless_nohup_protects_it() -> None:
    before = signal.getsignal(signal.SIGHUP)  # the tests themselves may run under `nohup`
    try:
        for disposition, stops in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, disposition)
            with stop_on_signal() as stop:
                os.kill(os.getpid(), signal.SIGHUP)
                assert stop.is_set() == stops
    finally:
        signal.signal(signal.SIGHUP, before)
