"""What a fuzz target is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Target:
    """One reader of files from elsewhere.

    run:   the reader on one input; the directory is the target's own, and may hold what earlier inputs left there.
           Any exception that comes out of it is a bug
    seeds: inputs to begin with, of our own making
    words: pieces that mutations are made of
    """

    run: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
