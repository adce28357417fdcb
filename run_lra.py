#!/usr/bin/env python
"""Train sequence mixers on the Long-Range Arena, and compare them.

Start:      suite --protocol quick      trains two mixers on every task, in minutes

Train:      train --task listops --mixer cosformer
            evaluate RUN
            attention RUN RUN           plots attention weights

Many runs:  suite --protocol laptop --tasks listops text --seeds 3
            status --watch
            repro listops softmax       reproduces a published score

Results:    leaderboard --protocol laptop
            validate; submit RUN        checks records; copies one to results/

Mixers:     list; check my_file.py; bench cosformer softmax

Data:       data prepare; data verify; data show image; data export text DIRECTORY
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parent))

if sys.platform == "win32":
    raise SystemExit("error: Windows is not supported; use WSL (docs/reliability.md)")
try:
    import tyro
except ModuleNotFoundError:
    raise SystemExit(
        "error: the dependencies are not installed in this Python. `make install` installs them into .venv;\n"
        "then `source .venv/bin/activate`, or use `.venv/bin/python run_lra.py`"
    ) from None
from tyro.conf import OmitSubcommandPrefixes, subcommand

from lra.commands.data import Data
from lra.commands.many_runs import Repro, Status, Suite
from lra.commands.mixers import Bench, Check, List
from lra.commands.results import Leaderboard, Submit, Validate
from lra.commands.training import Attention, Evaluate, Train, train_defaults
from lra.errors import Interrupted, LraError
from lra.paths import explain
from tasks.errors import DataError


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    commands = (
        Annotated[Train, subcommand("train", default=train_defaults(argv))]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Attention, subcommand("attention")]
        | Annotated[Suite, subcommand("suite")]
        | Annotated[Status, subcommand("status")]
        | Annotated[Repro, subcommand("repro")]
        | Annotated[Submit, subcommand("submit")]
        | Annotated[Validate, subcommand("validate")]
        | Annotated[Leaderboard, subcommand("leaderboard")]
        | Annotated[Check, subcommand("check")]
        | Annotated[Bench, subcommand("bench")]
        | Annotated[List, subcommand("list")]
        | Annotated[Data, subcommand("data")]
    )
    try:
        command = tyro.cli(OmitSubcommandPrefixes[commands], args=argv, description=__doc__)  # type: ignore[misc]
        return command.run()
    except BrokenPipeError:  # the reader of standard output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LraError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return Interrupted.exit_status
    except OSError as error:
        if (message := explain(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1


def command_line() -> int:
    """Run `main` in a process of its own; the entry point of the command `lra`."""
    gc.set_threshold(50_000)  # objects made by imports and tracing stay, so collecting often only costs time
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding shows "?" for a character that it lacks. Files are UTF-8 everywhere.
        encoding = {} if stream.isatty() else {"encoding": "utf-8"}
        stream.reconfigure(errors="replace", line_buffering=True, **encoding)  # type: ignore[union-attr]
    return main()


if __name__ == "__main__":
    sys.exit(command_line())
