"""Fixtures of every test: where real data lies, if it does; compiled programs are kept between tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Most of a test is compilation, and what it compiles runs for milliseconds. Here and in the processes that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Without optimisations the old emitters compile in half the time, where jaxlib still has them. XLA ends a process at a
# flag that it does not know, so one of its own is asked; pytest's workers inherit the answer.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
    if subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], capture_output=True, check=False).returncode:
        os.environ["XLA_FLAGS"] = ""
# The same examples every time and however slow the machine is; `--hypothesis-profile exploring` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("exploring", deadline=None)
settings.load_profile("repeatable")

# Files are dealt to workers in this order: were one of these the last, it would have the machine to itself.
LONGEST = ("hosts", "every_mixer", "contract", "train", "step_costs", "cli", "slurm", "length_shards")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory of the user's real source files (environment variable LRA_DATA)."""
    found = os.environ.get("LRA_DATA")
    if not found or not Path(found).is_dir():
        pytest.skip("real data: set LRA_DATA to the directory of aclImdb_v1.tar.gz, cifar-10-binary.tar.gz and AAN")
    return Path(found).resolve()
