"""What a record says of the place where a run happened, and of the code that it ran."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lra.provenance import environment as env
from lra.runtime.numerics import PINNED


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, Any]]]:
    """Asks for the code of a repository at `tmp_path`, of one commit."""
    for name in ("lra/api.py", "models/mixers/cosformer.py", "tasks/core.py", "configs/text.py", "run_lra.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n/models/mixers/secret*.py\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(env, "ROOT", tmp_path)

    def ask() -> dict[str, Any]:
        env.code_state.cache_clear()
        return env.code_state()

    yield ask
    env.code_state.cache_clear()


def test_a_checkout_without_changes_is_clean(tmp_path: Path, state: Callable[[], dict[str, Any]]) -> None:
    first = state()
    assert first["git_clean"] is True
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert first["git_commit"] == head.stdout.strip()
    for name in ("notes.txt", "docs/x.py", "models/__pycache__/core.pyc", "results/a.json"):  # nothing that runs
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert state() == first


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("models/mixers/aft.py", "# never added"),
        ("models/mixers/secret_aft.py", "# ignored"),
        ("models/mixers/secret ü.py", "# ignored, and its name is quoted"),
        ("lra/new/folder.py", "# never added"),
        ("lra/api.py", "# changed"),
        ("run_lra.py", "# changed"),
        ("configs/text.py", None),
    ],
)
def test_a_file_that_the_commit_does_not_have_is_not_clean(
    tmp_path: Path, state: Callable[[], dict[str, Any]], name: str, text: str | None
) -> None:
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert state()["git_clean"] is False


def test_what_is_asked_at_the_start_stays(tmp_path: Path, state: Callable[[], dict[str, Any]]) -> None:
    first = state()
    (tmp_path / "lra" / "api.py").write_text("# edited while it runs")
    assert env.code_state() == first
    assert state()["sha256"] != first["sha256"]


def test_variables_that_change_results_are_there_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in env.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert env.environment()["variables"] == {}
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "")
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={Path.home()}/x\n--xla_gpu_deterministic_ops=true")
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somebody")
    result = env.environment()
    flags = "--xla_dump_to=~/x --xla_gpu_deterministic_ops=true"
    assert result["variables"] == {"NVIDIA_TF32_OVERRIDE": "1", "XLA_FLAGS": flags}
    assert result["xla_flags"] == flags
    assert "abc" not in json.dumps(result)
    assert str(Path.home()) not in json.dumps(result)
    assert not {name.lower() for name in env.VARIABLES} & PINNED.keys()  # those have no effect


def test_what_has_a_part_beside_jax_is_there_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    import PIL
    import scipy
    import sklearn

    assert (
        env.environment()["packages"]
        | {
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
            "pillow": PIL.__version__,
        }
        == env.environment()["packages"]
    )


def test_on_a_gpu_cuda_and_the_driver_are_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    cuda = {"jax-cuda12-plugin": "0.10.2", "nvidia-cudnn-cu12": "9.8", "nvidia-cublas": "13.1"}
    versions = env.versions() | cuda
    monkeypatch.setattr(env, "versions", lambda: versions)
    assert not cuda.keys() & env.environment()["packages"].keys()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert env.environment()["packages"].items() >= cuda.items()
    message = (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
    )
    (tmp_path / "version").write_text(message)
    assert env._driver(tmp_path / "version") == "535.104.05"
    assert env._driver(tmp_path / "none") is None
