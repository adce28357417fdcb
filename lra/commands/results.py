"""Commands on records: `submit` and `validate` them, and show the `leaderboard`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lra.commands.arguments import ProtocolName, RunName
from lra.paths import runs_directory


@dataclasses.dataclass
class Submit:
    """Copy the record of a finished run from runs/ to results/ if it passes validation."""

    run_name: RunName
    """Name of the run in runs/, or path of its directory."""

    def run(self) -> int:
        from lra.record.submit import submit

        for path in submit(self.run_name):
            print(path)
        return 0


@dataclasses.dataclass
class Validate:
    """Check result records: schema, hashes, protocol, and the score if the task's labels are available."""

    paths: Positional[Annotated[tuple[Path, ...], arg(metavar="[PATH ...]")]] = ()
    """Files or directories. Default: results/."""

    def run(self) -> int:
        from rich.console import Console

        from lra.record.validate import validate, validation_table

        reports = validate(self.paths)
        Console().print(validation_table(reports))
        return 1 if any(r.verdict == "FAIL" for r in reports) else 0


@dataclasses.dataclass
class Leaderboard:
    """Show the leaderboard of your own runs and the committed records."""

    format: Literal["table", "md", "csv", "json", "latex", "html"] = "table"
    protocol: ProtocolName | None = None
    """Show one protocol. Default: all."""

    def run(self) -> int:
        from rich.console import Console

        from lra.leaderboard import build as leaderboard
        from lra.record import files as record

        shown = leaderboard.render(leaderboard.board(record.find(), self.protocol), self.format)
        if isinstance(shown, str):
            print(shown)
        else:
            Console().print(shown)
        return 0


def print_results(protocol: str, labels: set[str]) -> None:
    """Print the results of a suite, write the leaderboard as a web page, and print what to do next."""
    from rich.console import Console

    from lra.leaderboard import build as leaderboard
    from lra.leaderboard.summary import summary
    from lra.paths import write_atomically
    from lra.record import files as record

    board = leaderboard.board(record.find())
    print()
    Console().print(summary(board, protocol, labels))
    page = runs_directory() / "leaderboard.html"
    write_atomically(page, str(leaderboard.render(board, "html")) + "\n")
    shown = page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page
    print(f"All results:    python run_lra.py leaderboard, or the page {shown}")
    print("Next:           python run_lra.py train --task listops --mixer cosformer --protocol laptop")
    print("Documentation:  docs/README.md")
