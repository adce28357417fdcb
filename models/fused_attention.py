"""Softmax attention by `jax.nn.dot_product_attention`, and when the softmax mixer uses it."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from models.ops import boolean_mask, zero_padding

try:
    from jax._src.xla_bridge import backends_are_initialized
except ImportError:  # JAX has no public name for it, and may rename this one

    def backends_are_initialized() -> bool:
        return True


Implementation = Literal["blocks", "cudnn", "xla"]


def on_gpu() -> bool:
    """Return whether JAX has started on a GPU.

    Tracing does not start JAX, and this must not either: a process that only checks shapes would block the GPU. Only
    in a version of JAX that does not tell whether it has started, it is started here.
    """
    return backends_are_initialized() and jax.default_backend() == "gpu"


def choose_implementation(q: Any, k: Any, v: Any, *, dropout: bool, slopes: bool = False) -> Implementation:
    """Return how softmax attention of these arrays is computed on this machine.

    "cudnn" needs a GPU of NVIDIA with compute capability 8.0 or more, arrays of one 16-bit dtype, heads of one width
    that is a multiple of 8 and at most 128, and a version of cuDNN that JAX accepts. Otherwise it is "blocks".

    Args:
      q, k, v: as of `softmax_attention`, arrays or `jax.ShapeDtypeStruct`
      dropout: whether weights are dropped, for which `jax.nn.dot_product_attention` has no argument
      slopes:  whether logits decrease with the distance; its argument for that is an array [H, Lq, Lk]
    """
    if dropout or slopes or not on_gpu():
        return "blocks"
    width, dtypes = q.shape[3], {x.dtype.name for x in (q, k, v)}
    if dtypes not in ({"float16"}, {"bfloat16"}) or width % 8 or width > 128 or width != v.shape[3]:
        return "blocks"
    major = str(getattr(jax.local_devices()[0], "compute_capability", "")).partition(".")[0]
    if not major.isdecimal() or int(major) < 8:  # a GPU of AMD has a name such as gfx942
        return "blocks"
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size > 1 and any(kind != jax.sharding.AxisType.Manual for kind in mesh.axis_types):
        return "blocks"  # JAX cannot partition cuDNN's attention where `jax.shard_map` maps only some axes
    attend = partial(fused_attention, "cudnn", mask=jnp.ones(k.shape[:2], bool))
    try:
        jax.eval_shape(lambda *qkv: jax.vjp(attend, *qkv)[0], q, k, v)
    except RuntimeError:  # no cuDNN, or NotImplementedError: one too old for this GPU
        return "blocks"
    return "cudnn"


def fused_attention(implementation: Literal["cudnn", "xla"], q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Compute softmax attention over the real keys by `jax.nn.dot_product_attention`.

    Its argument `mask` would have to be an array [B, 1, Lq, Lk] for cuDNN. The number of keys needs no memory, but it
    masks only keys at the end. Attention does not depend on the order of keys, so the padded ones are moved there. JAX
    also refuses to differentiate cuDNN's attention of odd lengths, so a padded key and a query are added to these.

    Args:
      q:    [B, Lq, H, K]
      k, v: [B, Lk, H, K], dtype of q
      mask: [B, Lk] bool, True = real key

    Returns:
      [B, Lq, H, K]; zeros where an example has no real key
    """
    mask = boolean_mask(mask)
    order = jnp.argsort(~mask, axis=1, stable=True)
    examples = jnp.arange(len(mask))[:, None]

    def even(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)))

    def real_first(x: Array) -> Array:
        indexed = zero_padding(x, mask).at[examples, order]
        return even(indexed.get(unique_indices=True, mode="promise_in_bounds"))

    # An example without real keys attends to a padded key. Both key and value of it are zeros without a gradient.
    lengths = jnp.maximum(mask.sum(1, dtype=jnp.int32), 1)
    y = jax.nn.dot_product_attention(
        even(q), real_first(k), real_first(v), key_value_seq_lengths=lengths, implementation=implementation
    )
    return y[:, : q.shape[1]]
