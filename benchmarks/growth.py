"""Time and memory of every mixer against the length: measures, writes growth.json, draws docs/growth.png.

python benchmarks/growth.py            # about a quarter of an hour; let nothing else run
python benchmarks/growth.py --draw     # only the figure and the table, from growth.json

One layer, one example that fills the length, forward and backward, float32; each mixer in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

FILE = Path(__file__).with_suffix(".json")
FIGURE = ROOT / "docs" / "growth.png"
PAGE = ROOT / "docs" / "growth.md"
LENGTHS = (512, 1024, 2048, 4096, 8192)
SIZES = {"d_model": 64, "num_heads": 2, "qkv_dim": 64, "mlp_dim": 128}


def measure_one(name: str) -> list[dict[str, Any]]:
    from lra import growth
    from models import mixers
    from models.core import Dims

    points = growth.measure(mixers.resolve(name).cls, {}, Dims(**SIZES, max_len=LENGTHS[-1]), LENGTHS)
    return [dataclasses.asdict(p) for p in points]


def measure_all() -> dict[str, Any]:
    from lra.environment import environment
    from models.mixers import available

    points = {}
    for name in available():
        print(name, file=sys.stderr, flush=True)
        words = [sys.executable, __file__, "--one", name]
        points[name] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return {"sizes": SIZES, "environment": environment(), "points": points}


def draw(measured: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points = measured["points"]
    figure, axes = plt.subplots(1, 2, figsize=(12, 6.5), constrained_layout=True)
    panels = (("seconds", 1e3, "ms a step"), ("bytes", 2**-20, "MiB, temporary"))
    for axis, (field, unit, label) in zip(axes, panels, strict=True):
        ends = {}
        for i, (name, of_name) in enumerate(points.items()):
            values = [p[field] * unit for p in of_name]
            emphasis = name in ("cosformer", "softmax")
            axis.plot(
                [p["length"] for p in of_name], values, color=plt.get_cmap("tab20")(i % 20),
                lw=2.8 if emphasis else 1.3, ls=("-", "--", ":")[i % 3] if not emphasis else "-",
                marker="osD^v"[i % 5], ms=4,
            )  # fmt: skip
            ends[name] = values[-1]
        axis.set(xscale="log", yscale="log", xlabel="length", ylabel=label)
        axis.set_xticks([p["length"] for p in of_name], [f"{p['length']:,}" for p in of_name], minor=False)
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        low, high = axis.get_ylim()
        for name, y in spread(ends, 0.032 * (high / low if high > low else 1), low, high).items():
            i = list(points).index(name)
            axis.annotate(
                name, (LENGTHS[-1], ends[name]), (1.03, y), textcoords=axis.get_yaxis_transform(), va="center",
                fontsize=9, color=plt.get_cmap("tab20")(i % 20), annotation_clip=False,
                fontweight="bold" if name in ("cosformer", "softmax") else "normal",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.7"},
            )  # fmt: skip
    device = f"{measured['environment']['device']}, {measured['environment']['cores']} cores"
    figure.suptitle(f"One layer, one example, forward and backward, width 64, 2 heads, float32; {device}", fontsize=10)
    figure.savefig(FIGURE, dpi=130)


def spread(ends: dict[str, float], _: float, low: float, high: float) -> dict[str, float]:
    """Places of the labels: in the order of the values, at least 1/30 of the axis apart."""
    import math

    height = math.log(high / low)
    names = sorted(ends, key=ends.__getitem__)
    places = [math.log(ends[n] / low) / height for n in names]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + 1 / 30)
    over = max(0.0, places[-1] - 1.0)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], (places[i + 1] - 1 / 30) if i + 1 < len(places) else 1.0) if over else places[i]
    return {n: low * math.exp(p * height) for n, p in zip(names, places, strict=True)}
