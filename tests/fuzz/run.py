"""Fuzzes readers with atheris (`pip install '.[fuzz]'`), one process a target.

    python -m tests.fuzz.run --seconds 60                 # every target
    python -m tests.fuzz.run --seconds 600 listops record
    python -m tests.fuzz.run --replay FILE listops        # one input, with its traceback

Grown corpora and crashing inputs are kept in `.cache/fuzz/`; a crasher that is worth keeping belongs in `crashers/`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".cache" / "fuzz"
INSTRUMENTED = ["tasks", "lra", "models", "tarfile", "zipfile", "gzip", "json", "tomllib", "numpy.lib.format", "PIL"]
MEMORY = Path("/dev/shm")  # truncating a file on a disk takes longer than most readers do
INPUT_SECONDS, INPUT_BYTES, GROWTH_BYTES = 10, 1 << 16, 1 << 30  # for one input; address space beyond what is loaded


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input through one target")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        fuzz(args.names[0], args.seconds)
    from tests.fuzz.targets import TARGETS

    if unknown := set(args.names) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if args.replay:
        with tempfile.TemporaryDirectory() as place:
            TARGETS[args.names[0]].run(args.replay.read_bytes(), Path(place))
        return 0
    print(f"{'target':20} {'seconds':>8} {'executions':>11} {'coverage':>9}  found")
    return max([_one(name, args.seconds) for name in args.names or TARGETS])


def _one(name: str, seconds: int) -> int:
    """Fuzzes one target in a process of its own, and prints what came of it."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", "--seconds", str(seconds), name]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    executions = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stdout)
    coverage = re.findall(r"cov: (\d+)", done.stdout)
    written = re.search(r"Test unit written to (\S+)", done.stdout)
    found = "nothing" if done.returncode == 0 else written[1] if written else "see below"
    count = int(executions[1]) if executions else 0
    took = time.monotonic() - begun
    print(f"{name:20} {took:8.0f} {count:11,} {coverage[-1] if coverage else '-':>9}  {found}", flush=True)
    if done.returncode:
        message = [line for line in done.stdout.splitlines() if not line.startswith(("INFO", "#", "0x"))]
        print("\n".join(message[-40:]), file=sys.stderr)
    return int(done.returncode != 0)


def fuzz(name: str, seconds: int) -> None:
    """Fuzzes in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        importlib.import_module("PIL.PngImagePlugin")  # its user imports it late
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus, crashes = KEPT / name / "corpus", KEPT / name / "crashes"
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        seeds, place = Path(scratch) / "seeds", Path(scratch) / "place"
        seeds.mkdir()
        place.mkdir()
        longest = INPUT_BYTES
        for number, seed in enumerate(target.seeds()):
            longest = max(longest, len(seed))
            (seeds / str(number)).write_bytes(seed)
            target.run(seed, place)  # what is imported late is not counted as growth
        words = Path(scratch) / "words"
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH_BYTES, resource.RLIM_INFINITY))
        options = {
            "max_total_time": seconds,
            "timeout": INPUT_SECONDS,
            "max_len": longest,
            "rss_limit_mb": 0,  # the address space is limited instead: a MemoryError has a traceback
            "print_final_stats": 1,
            "artifact_prefix": f"{crashes}/",
        }
        given = [f"-{key}={value}" for key, value in options.items()] + [f"-dict={words}"] * bool(target.words)
        crashers = [str(p) for p in [Path(__file__).parent / "crashers" / name] if p.is_dir()]
        atheris.Setup([name, *given, str(corpus), str(seeds), *crashers], lambda data: target.run(data, place))
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
