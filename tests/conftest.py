"""Fixtures of every test: where real data lies, if it does; compiled programs are kept between tests."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import jaxlib
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Most of a test is compilation, and what it compiles runs for milliseconds. Here and in the processes that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Without optimisations the old emitters compile in half the time. XLA ends a process at a flag that it does not know.
EMITTERS = "xla_cpu_use_fusion_emitters"


def _knows(flag: str) -> bool:
    """Whether XLA's library has the word."""
    for library in Path(jaxlib.__file__).parent.glob("libjax_common.so*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(flag.encode()) >= 0
    return False


if _knows(EMITTERS):
    os.environ.setdefault("XLA_FLAGS", f"--{EMITTERS}=false")
# The same examples every time and however slow the machine is; `--hypothesis-profile exploring` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("exploring", deadline=None)
settings.load_profile("repeatable")

# Files are dealt to workers in this order: were one of these the last, it would have the machine to itself.
LONGEST = ("hosts", "every_mixer", "contract", "train", "step_costs", "cli", "together", "slurm", "length_shards")


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
