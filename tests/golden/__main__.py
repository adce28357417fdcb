"""Record the settings of every protocol, task and mixer: `python -m tests.golden`."""

from __future__ import annotations

import sys

from tests.golden import KINDS, differences, path, read, record


def main() -> int:
    before = {name: read(name) if path(name).exists() else {} for name in KINDS}
    if problems := record():
        print("\n".join(["nothing was written:", *problems]), file=sys.stderr)
        return 1
    for name in KINDS:
        for (entry, place), (old, new) in differences(before[name], read(name)).items():
            print(f"{entry}: {place}: {old!r} -> {new!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
