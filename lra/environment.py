"""Where a run happened: versions, hardware, flags, and the code that computed it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CODE = ("lra", "models", "tasks", "configs")


def environment() -> dict[str, Any]:
    """Versions, hardware and flags of this process."""
    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind if jax.default_backend() != "cpu" else _processor(),
        "device_count": jax.device_count(),
        "processes": jax.process_count(),
        "cores": len(os.sched_getaffinity(0)),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


@cache
def code_state() -> dict[str, Any]:
    """SHA-256 over the suite's own source files, the git commit, and whether the work tree equals it."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None  # not a checkout: the hash of the files still names the code
        return done.stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return {
        "sha256": digest.hexdigest(),
        "git_commit": git("rev-parse", "HEAD"),
        "git_clean": None if changes is None else changes == "",
    }
