"""Labels of mixers as the board writes them, read back."""

from __future__ import annotations

import re
from typing import Any

from models import mixers


def parsed(label: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of `performer(kernel=relu, features=0)`."""
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", label)
    assert match, label
    texts = match[2].split(", ") if match[2] else []
    return match[1], mixers.parse_options(mixers.resolve(match[1]).cls, texts)
