"""Where a run happened: versions, hardware, variables, and the code that computed it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import loky

from lra.paths import ROOT

CODE = ("lra", "models", "tasks", "configs")
NEEDED = ("jax", "jaxlib", "flax", "optax", "numpy")
ALSO = ("pillow", "scikit-learn", "scipy")
CUDA = (
    *(f"jax-cuda{n}-{part}" for n in (12, 13) for part in ("plugin", "pjrt")),
    *(f"nvidia-{part}{n}" for part in ("cublas", "cuda-runtime", "cudnn", "cufft") for n in ("-cu12", "-cu13", "")),
)

# Those that change results or the hardware that is used, and that `lra.runtime.numerics` does not override.
VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "JAX_COMPILER_ENABLE_REMAT_PASS",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT",
    "JAX_MEMORY_FITTING_EFFORT",
    "JAX_MEMORY_FITTING_LEVEL",
    "JAX_NUM_CPU_DEVICES",
    "JAX_OPTIMIZATION_LEVEL",
    "JAX_PLATFORMS",
    "JAX_PLATFORM_NAME",
    "JAX_THREEFRY_GPU_KERNEL_LOWERING",
    "JAX_USE_DIRECT_LINEARIZE",
    "JAX_USE_SHARDY_PARTITIONER",
    "LIBTPU_INIT_ARGS",
    "NVIDIA_TF32_OVERRIDE",
    "TF_CUBLAS_WORKSPACE_LIMIT_IN_MB",
    "TF_CUDNN_DETERMINISTIC",
    "TF_CUDNN_USE_AUTOTUNE",
    "TF_CUDNN_USE_FRONTEND",
    "TF_CUDNN_WORKSPACE_LIMIT_IN_MB",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Return versions, hardware and variables of this process. It starts JAX."""
    import jax
    from jax.extend.backend import get_backend

    gpu = jax.default_backend() == "gpu"
    return {
        "python": platform.python_version(),
        **{name: versions()[name] for name in NEEDED},
        "packages": {k: v for k, v in versions().items() if k in ALSO or (gpu and k in CUDA)},
        "system": f"{platform.system()} {platform.machine()}",
        "backend": jax.default_backend(),
        "backend_version": " ".join(get_backend().platform_version.split()),
        "driver": _driver() if gpu else None,
        "device": jax.devices()[0].device_kind if jax.default_backend() != "cpu" else _processor(),
        "device_count": jax.device_count(),
        "processes": jax.process_count(),
        "cores": loky.cpu_count(),
        "xla_flags": _without_home(os.environ.get("XLA_FLAGS", "")),
        "variables": {name: _without_home(os.environ[name]) for name in VARIABLES if os.environ.get(name)},
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that compute, where they are installed, as they are at the first call."""
    found = {}
    for name in (*NEEDED, *ALSO, *CUDA):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _without_home(text: str) -> str:
    """Return a text without the user's folder: records are published."""
    return " ".join(text.replace(str(Path.home()), "~").split())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of NVIDIA's driver; None where the kernel does not tell it."""
    try:
        found = re.search(r"\d+\.\d+(\.\d+)?", path.read_text())
    except OSError:
        return None
    return found and found[0]


@cache
def code_state() -> dict[str, Any]:
    """Return the SHA-256 of the suite's source files, the git commit, and whether the work tree equals it.

    It is asked once in a process, at the start of a run: what is committed or edited later is not what runs. A source
    file that git does not track is a difference too.
    """
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

    shown = ("--porcelain", "--untracked-files=all", "--ignored")
    changes = git("status", *shown, "--", *CODE, "run_lra.py")
    return {
        "sha256": digest.hexdigest(),
        "git_commit": git("rev-parse", "HEAD"),
        "git_clean": None if changes is None else not list(filter(_counts, changes.splitlines())),
    }


def _counts(line: str) -> bool:
    """Whether a line of `git status --porcelain` is of a difference; of ignored files those that Python would run."""
    return not line.startswith("!!") or line.endswith((".py", '.py"'))
