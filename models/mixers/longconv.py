"""Long convolutions with free kernels (Fu et al., 2023, arXiv:2302.06646), in both directions.

    y = squash(k) * u + squash(k') *' u + d u,    squash(k)_t = sign(k_t) max(|k_t| - shrink, 0)

Each channel has a kernel k as long as `dims.max_len`, whose entries are parameters, and a second one, k', for the
backward direction *' (positions j > i). The soft threshold sets small entries to zero, so kernels become sparse. As in
S4D, y is followed by GELU and a gated linear unit. The number of parameters grows with max_len: 2 max_len D + 2 D^2.

The learning rate of the kernels is `lr`, without weight decay. The published runs on Long Range Arena use kernels of
normal numbers with standard deviation 0.002, a rate of 5e-4 and a `shrink` of 0.001 to 0.004 (HazyResearch/safari,
commit 02220c6).

Deviations from the authors' code: it drops entries of the kernels in training, with the same mask for the whole batch;
here examples must not depend on each other. The published blocks have BatchNorm and no MLP between the mixers. Both
directions are convolved with u, which is zero at padding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.convolution import long_convolution
from models.core import Dims, check_range, projection
from models.dropout import dropout, fold_in_keys
from models.ops import gelu, zero_padding

COMPLEXITY = ("L log L", "L")
KERNEL_STD = 0.002


class LongConv(nnx.Module):
    """Long convolution with its GLU.

    shrink:        threshold of the kernels' entries
    bidirectional: add a second kernel from the right
    lr:            peak learning rate of the kernels, at most the protocol's
    """

    def __init__(
        self, dims: Dims, *, shrink: float = 0.003, bidirectional: bool = True, lr: float = 5e-4, rngs: nnx.Rngs
    ) -> None:
        check_range(0.0, 1.0, shrink=shrink)
        check_range(1e-9, 1.0, lr=lr)
        self.dims, self.shrink = dims, shrink
        shape = (1 + bidirectional, dims.d_model, dims.max_len)
        self.kernels = nnx.Param(KERNEL_STD * jax.random.normal(rngs.params(), shape), lr=lr, decay=False)
        self.d = nnx.Param(jax.random.normal(rngs.params(), (dims.d_model,)))
        self.output = projection(dims, dims.d_model, 2 * dims.d_model, bias=True, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        u = zero_padding(x, mask).astype(jnp.promote_types(x.dtype, jnp.float32))
        kernels = squash(self.kernels[...].astype(u.dtype), self.shrink)
        backward = kernels[1, :, : u.shape[1] - 1] if len(kernels) == 2 else None
        y = long_convolution(u, kernels[0, :, : u.shape[1]], backward) + self.d[...][None, None] * u
        y = gelu(y).astype(self.dims.dtype)
        return jax.nn.glu(self.output(dropout(y, self.dims.hidden_dropout, fold_in_keys(rng_keys, 0))))


def squash(kernels: Array, shrink: float) -> Array:
    """Move every entry towards zero by `shrink`, and set those that are closer to zero."""
    return jnp.sign(kernels) * jax.nn.relu(jnp.abs(kernels) - shrink)
