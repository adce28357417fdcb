"""Time and memory of every mixer against the length: measures, and writes growth.json, docs/growth.md, docs/growth.png.

python benchmarks/growth.py            # some five minutes on two cores; let nothing else run
python benchmarks/growth.py --draw     # only page and figure, from growth.json

One layer, one example that fills the length, forward and backward, float32; each mixer in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lra.contract.scaling import Point, exponent

DOCS = Path(__file__).resolve().parent.parent / "docs"
MEASURED = Path(__file__).with_suffix(".json")
LENGTHS = (512, 1024, 2048, 4096, 8192)
PANELS = {"seconds": (1e3, "milliseconds"), "bytes": (2**-20, "MiB of temporary memory")}

Points = dict[str, list[Point]]


def measure_one(name: str) -> list[Point]:
    from lra.contract import scaling as growth
    from models import mixers
    from models.core import Dims

    dims = Dims(d_model=64, num_heads=2, qkv_dim=64, max_len=LENGTHS[-1], mlp_dim=128)
    return growth.measure(mixers.resolve(name).cls, {}, dims, LENGTHS)


def measure_all() -> dict[str, Any]:
    from lra.provenance.environment import environment
    from models.mixers import available

    points = {}
    for name in available():
        print(name, file=sys.stderr, flush=True)
        one = [sys.executable, __file__, "--one", name]
        points[name] = json.loads(subprocess.run(one, check=True, capture_output=True, text=True).stdout)
    return {"points": points, "environment": environment()}


PAGE = """# Time and memory against the length

One layer of width 64 with two heads, one example that fills the length, forward and backward, float32, on
{hardware}. Every mixer has its default options. Made by `python benchmarks/growth.py`, which
runs each mixer in a process of its own and takes the best of five steps; memory is what the compiled step needs beside
its parameters.

![Time and memory of every mixer against the length](growth.png)

At {longest:,} tokens, and as a power of the length from {before:,} on (`time ~`). Operations are counted on the
program: they do not depend on the machine. The claim is the file's `COMPLEXITY`, time and memory.

{table}
"""
HEAD = ["mixer", "claim", "time", "of softmax", "memory", "of softmax", "operations"]
HEAD += ["time ~", "memory ~", "operations ~"]


def page(points: Points, hardware: str) -> str:
    """The figure, and the numbers of its right end."""
    from models import mixers

    base = points["softmax"][-1]
    rows = [HEAD, [":--"] * 2 + ["--:"] * 8]
    for name in sorted(points, key=lambda name: points[name][-1].seconds):
        before, last = points[name][-2:]
        rows.append(
            [
                name,
                ", ".join(mixers.resolve(name).complexity or ("–",)),
                f"{1e3 * last.seconds:,.1f} ms",
                f"{last.seconds / base.seconds:.3f}",
                f"{last.bytes / 2**20:,.0f} MiB",
                f"{last.bytes / base.bytes:.3f}",
                f"{last.flops / 1e9:,.2f} G",
                *(f"L^{exponent(before, last, of):.2f}" for of in ("seconds", "bytes", "flops")),
            ]
        )
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return PAGE.format(hardware=hardware, longest=LENGTHS[-1], before=LENGTHS[-2], table=table)


def draw(points: Points, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    others = [name for name in points if name not in ("cosformer", "softmax")]
    styles: dict[str, dict[str, Any]] = {
        "cosformer": {"color": "crimson", "lw": 3},
        "softmax": {"color": "black", "lw": 3},
    }
    for i, name in enumerate(others):  # nine colours beside the two, twice
        colour = plt.get_cmap("tab10")((i % 9) + (i % 9 >= 3))
        styles[name] = {"color": colour, "lw": 1.4, "ls": ("-", (0, (5, 2)))[i // 9]}
    figure, axes = plt.subplots(1, 2, figsize=(13, 7), constrained_layout=True)
    for axis, (field, (unit, label)) in zip(axes, PANELS.items(), strict=True):
        ends = {name: getattr(of_name[-1], field) * unit for name, of_name in points.items()}
        for name, of_name in points.items():
            axis.plot(LENGTHS, [getattr(p, field) * unit for p in of_name], marker="o", ms=3.5, **styles[name])
        axis.set(xscale="log", yscale="log", xlabel="length", ylabel=label)
        axis.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        for name, height in apart(ends, *axis.get_ylim()).items():
            axis.annotate(
                name,
                (LENGTHS[-1], ends[name]),
                (1.06, height),
                textcoords="axes fraction",
                va="center",
                fontsize=9,
                color=styles[name]["color"],
                weight="bold" if name not in others else "normal",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.7"},
                annotation_clip=False,
            )
    figure.savefig(path, dpi=120)


def apart(ends: dict[str, float], low: float, high: float, gap: float = 0.035) -> dict[str, float]:
    """Heights of the labels, as fractions of a logarithmic axis: in order, at least `gap` apart, below the top."""
    names = sorted(ends, key=ends.__getitem__)
    heights = [math.log(ends[name] / low) / math.log(high / low) for name in names]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    limit = 1.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], limit)
        limit = heights[i] - gap
    return dict(zip(names, heights, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--one", metavar="MIXER", help="measure one, print its points")
    words = parser.parse_args()
    if words.one:
        print(json.dumps([dataclasses.asdict(p) for p in measure_one(words.one)]))
        return
    if not words.draw:
        MEASURED.write_text(json.dumps(measure_all(), indent=1) + "\n")
    measured = json.loads(MEASURED.read_text())
    points = {name: [Point(**p) for p in of_name] for name, of_name in measured["points"].items()}
    e = measured["environment"]
    (DOCS / "growth.md").write_text(page(points, f"{e['device']}, {e['cores']} cores, jax {e['jax']}"))
    draw(points, DOCS / "growth.png")


if __name__ == "__main__":
    main()
