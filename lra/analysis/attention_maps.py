"""The L x L weights of a trained mixer, drawn as in the cosFormer paper (Qin et al., 2022, figure 5).

A mixer that is linear in v, with the same weights for all features of a head, computes y = A v with a matrix A [L, L]
for each head. For v = I its output is A.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lra.errors import RunError
from lra.finished import trained
from models.core import QKVAttention, project
from models.encoder import Classifier, MixerBlock
from tasks.core import Split

NEAR = 16  # positions
PIXELS = 400  # maximal side of an image; longer sequences are averaged over squares


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a run.

    Attributes:
      label: mixer and seed
      layers: float32 [H, L, L] of each layer; rows are queries
    """

    label: str
    layers: tuple[np.ndarray, ...]


def weights(model: Classifier, ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the weights of each layer, float32 [H, L, L], for one document of token ids int [L] without padding.

    Raises:
      RunError: a mixer has no q, k and v (`models.core.QKVAttention`), or is not y = A v.
    """
    x, mask = model.embed(jnp.asarray(ids)[None], jnp.ones((1, len(ids)), bool))
    layers = []
    for block in model.blocks:
        if not isinstance(block, MixerBlock) or not isinstance(block.mixer, QKVAttention):
            name = type(block.mixer if isinstance(block, MixerBlock) else block).__name__
            raise RunError(f"{name} has no weights of v to draw: it does not mix q, k and v (models.core.QKVAttention)")
        layers.append(_implied(block.mixer, block.mixer_norm(x), mask))
        x = block(x, mask)
    return tuple(layers)


def _implied(mixer: QKVAttention, x: jax.Array, mask: jax.Array) -> np.ndarray:
    """Return the weights [H, L, L] for x [1, L, D]."""
    length, heads, width = x.shape[1], mixer.dims.num_heads, mixer.dims.head_dim
    q, k, v = (y.reshape(1, length, heads, width) for y in project(x, mixer.query, mixer.key, mixer.value))
    attend = jax.jit(lambda v: mixer.attend(q, k, v, mask, None))
    count = -(-length // width)
    columns = jnp.eye(length, count * width, dtype=v.dtype).reshape(length, count, 1, width)
    parts = [attend(jnp.broadcast_to(columns[None, :, c], v.shape)) for c in range(count)]  # each [1, L, H, width]
    a = jnp.concatenate(parts, -1)[0, :, :, :length].swapaxes(0, 1)
    error = jnp.abs(jnp.einsum("hij,jhk->ihk", a, v[0]) - attend(v)[0]).max() / jnp.abs(attend(v)).max()
    if not error <= 1e-3:
        raise RunError(
            f"{type(mixer).__name__} has no weights to draw: it is not linear in v, or its weights differ between the "
            f"features of a head (relative error {error:.1e})"
        )
    return np.asarray(a, np.float32)


def local_attention_fraction(layer: np.ndarray) -> float:
    """Return the share of absolute weight within `NEAR` positions of the query."""
    position = np.arange(layer.shape[-1])
    near = np.abs(position[:, None] - position[None, :]) <= NEAR
    return float(np.divide(np.abs(layer)[:, near].sum(), np.abs(layer).sum()))


def draw(runs: Sequence[str], example: int, path: Path) -> list[str]:
    """Write a PNG with the weights of runs on one test example, and return a line for each layer.

    Raises:
      RunError: as `lra.finished.trained` and `weights`; or no such example; or runs differ in task, data or length.
    """
    drawn, seen = [], set()
    for name in runs:
        run = trained(name)
        column = run.record.column
        seen.add((column.task, column.data_sha256, run.functions.config.max_len))
        if len(seen) > 1:
            raise RunError(f"{name} has another task, data or length than {runs[0]}: draw it in another picture")
        ids = _ids(run.data.splits["test"], example, run.functions.config.max_len)
        label = f"{run.record.mixer.label}, seed {run.record.seed}"
        drawn.append(Weights(label, weights(run.functions.classifier(run.state), ids)))
    _picture(drawn, f"{column.task} {column.variant}, test example {example}, {len(ids):,} tokens", path)
    return [
        f"{w.label}, layer {i}: {local_attention_fraction(layer):.0%} of the weight within {NEAR} positions, uniform "
        f"{local_attention_fraction(np.ones_like(layer)):.0%}"
        for w in drawn
        for i, layer in enumerate(w.layers, 1)
    ]


def _ids(split: Split, example: int, max_len: int) -> np.ndarray:
    if not 0 <= example < len(split):
        raise RunError(f"--example {example}: the test split has 0 to {len(split) - 1}")
    document = int(np.atleast_1d(split.items[example])[0])  # the first of a pair
    return np.frombuffer(split.document(document)[:max_len], np.uint8).astype(np.int32) + 1


def _picture(drawn: Sequence[Weights], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    rows = [(w.label, i, layer) for w in drawn for i, layer in enumerate(w.layers, 1)]
    columns = max(len(layer) for _, _, layer in rows)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.7 * len(rows) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, number, layer) in zip(axes, rows, strict=True):
        for head, (ax, a) in enumerate(zip(line, layer, strict=False), 1):
            small = _averaged(a)
            ax.imshow(small, vmin=min(0.0, float(small.min())), vmax=float(np.quantile(small, 0.995)), cmap="viridis")
            ax.set_title(f"{label}\nlayer {number}, head {head}", fontsize=8)
            ax.set_xticks([])
            ax.set_yticks([])
    figure.supxlabel("key", fontsize=9)
    figure.supylabel("query", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _averaged(a: np.ndarray) -> np.ndarray:
    """Return [L, L] averaged over squares, with at most PIXELS a side; incomplete squares at the end are dropped."""
    side = -(-len(a) // PIXELS)
    n = len(a) // side
    return a[: n * side, : n * side].reshape(n, side, n, side).mean((1, 3))
