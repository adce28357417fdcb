"""LION, bidirectional linear attention with decay (Afzal et al., 2025, arXiv:2502.16249).

    y_i = sum_j w_ij v_j / max(sum_j w_ij, eps),    w_ij = phi(q_i) . phi(k_j) m_ij

The option `decay` selects m_ij, which is 1 for i = j:

    none        1, linear attention (LION-Lit)
    fixed       a^|i - j| with a learned decay a = sigmoid(s) of each head (LION-D)
    selective   the product of a_t over the tokens t from j towards i, without i, with a_t = 1 - sigmoid(w . x_t + b)
                of each head (LION-S)

Both directions are one recurrence each, so time and memory are linear in the length. The authors' code and text differ
in m_ij of LION-S: the text has the token i in the product, and not j. Here it is as in the code (commit 32a0136).

The option `features` selects phi: `silu` is (silu(x) + 1/2) divided by its norm, as in LION-D and LION-S, and `elu` is
elu(x) + 1, as in LION-Lit.

The published rows of the Long-Range Arena (86.07 on average with LION-S) initialise the decay by HiPPO and rescale the
values, which is not public; this file is the form of the authors' code for images.

Padding: keys and values are zero and the decay is 1 there, so the state passes through it unchanged.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MIN_EPS, Dims, QKVAttention, check_range, linear_layer
from models.decayed_attention import two_sided_attention
from models.feature_maps import FEATURE_MAPS
from models.ops import zero_padding

COMPLEXITY = ("L", "L")


def lion_attention(
    q: Array, k: Array, v: Array, mask: Array, forward_decay: Array, backward_decay: Array, eps: float = 1e-6
) -> Array:
    """Compute normalised two-sided attention; sums are in at least float32.

    Args:
      q, k: [B, L, H, K], after the feature map, not negative
      v:    [B, L, H, V]
      mask: [B, L] bool, True = real token
      forward_decay, backward_decay: logarithms of the decay from each position to the next one on the right and on the
            left, [B, L, H, 1]: their entry t decays what comes from earlier positions of the direction to t; or one
            array [H, 1] for a constant decay

    Returns:
      [B, L, H, V], dtype of v
    """
    accum_dtype = jnp.promote_types(v.dtype, jnp.float32)
    q, k, values = (zero_padding(x, mask).astype(accum_dtype) for x in (q, k, v))
    values = jnp.concatenate([values, jnp.ones_like(values[..., :1])], -1)  # the sum of this column is the denominator
    if forward_decay.ndim > 2:
        forward_decay, backward_decay = (zero_padding(x, mask) for x in (forward_decay, backward_decay))
    y = two_sided_attention(q, k, values, forward_decay, backward_decay)
    return (y[..., :-1] / jnp.maximum(y[..., -1:], eps)).astype(v.dtype)


class LION(QKVAttention):
    """Bidirectional linear attention with decay.

    decay, features: see the description of this file
    eps:             lower bound of the denominator
    """

    def __init__(
        self,
        dims: Dims,
        *,
        decay: Literal["none", "fixed", "selective"] = "selective",
        features: Literal["silu", "elu"] = "silu",
        eps: float = 1e-6,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(MIN_EPS, 1.0, eps=eps)
        super().__init__(dims, rngs=rngs)
        self.decay, self.features, self.eps = decay, features, eps
        if decay == "fixed":
            self.decay_logit = nnx.Param(jax.random.normal(rngs.params(), (dims.num_heads,)), decay=False)
        if decay == "selective":
            self.decay_layer = linear_layer(dims.d_model, dims.num_heads, init=dims.init, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        x = zero_padding(x, mask)
        heads = (*x.shape[:2], self.dims.num_heads, self.dims.head_dim)
        q, k, v = (layer(x).reshape(heads) for layer in (self.query, self.key, self.value))
        phi = FEATURE_MAPS[self.features]
        forward = backward = own = self._log_decay(x)
        if own.ndim > 2:
            # From the left, token j decays what it sends itself, but not token i what it receives: the decay between
            # neighbours is that of the neighbour that is passed or left.
            forward = jnp.pad(own[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
            backward = jnp.pad(own[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))
        y = lion_attention(phi(q), phi(k), v, mask, forward, backward, self.eps)
        return self.output(y.reshape(*x.shape[:2], self.dims.qkv_dim))

    def _log_decay(self, x: Array) -> Array:
        """Return the logarithm of the decay of each token, [B, L, H, 1], or of all, [H, 1], in at least float32."""
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        if self.decay == "none":
            return jnp.zeros((self.dims.num_heads, 1), dtype)
        if self.decay == "fixed":
            return jax.nn.log_sigmoid(self.decay_logit[...].astype(dtype))[:, None]
        return jax.nn.log_sigmoid(-self.decay_layer(x.astype(dtype)))[..., None]  # log(1 - sigmoid(z))
