"""The hashes at the end of a run's id: of its settings, its data and the code that computes it. Imports no JAX."""

from __future__ import annotations

import re


def short_hashes(config_sha256: str, data_sha256: str, code_sha256: str | None) -> list[str]:
    """Return the hashes as they end an id. None: the record was made before its code was recorded, and has two."""
    return [config_sha256[:8], data_sha256[:6], *([] if code_sha256 is None else [code_sha256[:6]])]


def id_hashes(run_id: str) -> list[str]:
    """Return the two or three `short_hashes` that end a run's id; an empty list if it does not end in them."""
    found = re.search(r"-([0-9a-f]{8})-([0-9a-f]{6})(?:-([0-9a-f]{6}))?\Z", run_id)
    return [part for part in found.groups() if part is not None] if found else []
