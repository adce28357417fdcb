"""The types of the arguments that several commands have: their choices, and the names that `--help` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from tyro.conf import Positional, arg

from lra import config as cfg

if TYPE_CHECKING:
    Task: TypeAlias = str
    ProtocolName: TypeAlias = str
else:
    Task = Literal[cfg.TASKS]
    ProtocolName = Annotated[
        Literal[cfg.PROTOCOL_NAMES], arg(metavar=f"{{{','.join(cfg.PROTOCOLS)}}}[+{{{','.join(cfg.RECIPES)}}}]")
    ]
Source = Literal["official", "generated", "tfds", "sample"]
RunName = Positional[Annotated[str, arg(name="run", metavar="RUN")]]
TaskName = Positional[Annotated[Task, arg(name="task", metavar="TASK", help=f"One of {', '.join(cfg.TASKS)}.")]]
MixerOptions = Annotated[tuple[str, ...], arg(metavar="[NAME=VALUE ...]")]
VARIANTS = (
    "Variant of the data: full; short (listops); cut (text, retrieval); 16 (image); "
    "12, 16-short, 32-easy, 32-intermediate, 64, 128, 256 (pathfinder)."
)
Variant = Annotated[str, arg(metavar="VARIANT", help=VARIANTS)]
Output = Annotated[Path | None, arg(metavar="PATH")]
Minutes = Annotated[float | None, arg(metavar="MINUTES")]
