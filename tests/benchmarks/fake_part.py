"""A process in place of `benchmarks.gpu.worker`: it writes lines as that does, and then ends as a test asks for.

Usage: fake_part.py BEHAVIOUR SETTINGS
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import lines

CASES = ("first", "second", "third")


def main() -> int:
    behaviour, settings = sys.argv[1], json.loads(sys.argv[2])
    output, part = Path(settings["output"]), settings["part"]
    if part == 1 and behaviour == "raises":
        raise ImportError("part 1 cannot be imported")
    if not lines.read(output, part):
        lines.append(output, part, "plan", cases=CASES)
    for case in (case for case in CASES if case not in lines.results(output, part)):
        lines.append(output, part, "start", case=case)
        if case == "second" and part == 1:
            if behaviour == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if behaviour == "hangs":
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1_000)"])
                (output / "hanging.pid").write_text(str(child.pid))
                child.wait()
        lines.append(output, part, "result", case=case, status="ok", seconds=0.0)
        if behaviour == "restarts":
            return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
