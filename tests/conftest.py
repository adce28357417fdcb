"""Fixtures of every test: where real data lies, if it does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory of the user's real source files (environment variable LRA_DATA)."""
    found = os.environ.get("LRA_DATA")
    if not found or not Path(found).is_dir():
        pytest.skip("real data: set LRA_DATA to the directory of aclImdb_v1.tar.gz, cifar-10-binary.tar.gz, aan_mini.tar.gz")
    return Path(found).resolve()
