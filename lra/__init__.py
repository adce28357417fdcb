"""Runs and judges: configuration, data, training, records, the board.

From a notebook:

    import lra
    record = lra.run("listops", "cosformer", protocol="quick", seed=0)
    lra.records()
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

_ROOT = str(Path(__file__).resolve().parent.parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)
for _name in ("models", "tasks", "configs"):
    _spec = find_spec(_name)
    if _spec is None or _spec.origin is None or Path(_spec.origin).resolve().parent.parent != Path(_ROOT):
        raise ImportError(
            f"another module called {_name!r} ({_spec.origin if _spec else 'none'}) hides the one in {_ROOT}: "
            f"start from there, or put it first on sys.path"
        )

if TYPE_CHECKING:
    from lra.api import records, run

__all__ = ["records", "run"]


def __getattr__(name: str) -> Any:  # heavy imports happen where they are used
    if name in __all__:
        from lra import api

        return getattr(api, name)
    raise AttributeError(f"module 'lra' has no attribute {name!r}")
