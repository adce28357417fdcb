"""cosFormer attention (Qin et al., 2022, arXiv:2202.08791).

    y_i = sum_j w_ij v_j / max(sum_j w_ij, eps)
    w_ij = relu(q_i) . relu(k_j) cos(pi/2 (i - j) / M)

This is linear attention with ReLU as its feature map. Each weight is multiplied by a cosine of the distance between
query and key, which favours nearby keys. There is no factor 1/sqrt(K).

Time and memory are linear in L. With the angles a_i = pi/2 i/M,

    cos(a_i - a_j) = cos a_i cos a_j + sin a_i sin a_j

so the sum over j splits into two states, sum_j cos(a_j) relu(k_j) v_j^T and the same with sin(a_j). Each is a matrix
K x V that all queries share. No L x L matrix of attention weights exists, so the protocol's attention dropout does not
apply.

Positions start at 1 and do not exceed M. All angles are therefore in (0, pi/2], all weights are non-negative, and
there is no cancellation in the denominator.

The options `feature_map`, `decay` and `rope` are not of the paper. With a feature map phi, a decay g_c of each channel
c and the rotation R_i of pairs of channels (`models/rotary.py`), the attention is

    y_i = sum_j n_ij v_j / max(sum_j w_ij, eps)
    w_ij = cos(pi/2 (i - j) / M) sum_c       phi(q_i)_c       phi(k_j)_c g_c^|i - j|
    n_ij = cos(pi/2 (i - j) / M) sum_c (R_i phi(q_i))_c (R_j phi(k_j))_c g_c^|i - j|

without rotation n_ij = w_ij, without decay g_c = 1, and by default phi = relu.

    feature_map=sigmoid   1 / (1 + exp(-x))
    feature_map=silu      (silu(x) + 1/2) / |silu(x) + 1/2|, as in LION-D and LION-S (Afzal et al., 2025,
                          arXiv:2502.16249)
    feature_map=elu       elu(x) + 1, as in linear attention (Katharopoulos et al., 2020, arXiv:2006.16236)
    decay=scalar          g = sigmoid(s) of each head with a learned s, initially normal, as in LION-D
    decay=vector          g_c = exp(-exp(p_c)), learned, initially exp(-d (c + 1)) for c = 0, 1, ... with a step d of
                          each head, log-uniform between 0.001 and 0.1. -(c + 1) are the eigenvalues of HiPPO-LegS, as
                          in S4D-Real (Gu et al., 2022, arXiv:2206.11893). A g_c below exp(-5) counts as exp(-5)
    rope=True             rotation of the features of the numerator alone, as in the linear form of RoPE (Su et al.,
                          2021, arXiv:2104.09864); two channels that are rotated together share a decay

With the decay the sum over j is a recurrence in each direction (`models/decayed_attention.py`), which counts j = i
once. Values are multiplied by cos(a_j) and sin(a_j) before it, so time and memory stay linear. LION's authors also
initialise by HiPPO, but the code of that is not public; their rescaling of values by the decay is not included.

With rope=True the output is not a weighted mean of values. |n_ij| can exceed w_ij where q_i and k_j have large features
in different channels. With ReLU, few tokens and narrow heads, the denominator can then be close to zero and the output
large; `eps` bounds it.

The option `m` selects M. Neither choice depends on padding or on other examples in the batch.

    m="max_len"   M is the encoder's length, `dims.max_len`, for every example. The cosine is nearly constant for much
                  shorter examples: at a quarter of max_len it is between 0.92 and 1.
    m="own"       M is the example's own number of real tokens. In the paper, M is the sequence length.

Deviations from the authors' code (github.com/OpenNLPLab/cosFormer): it has no padding mask; here padded keys have
weight zero. It takes M from the padded length of the batch, so its results change with the amount of padding.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from models import cosine_attention
from models.core import MIN_EPS, Dims, QKVAttention, check_range
from models.cosine_attention import cos_sin_weights
from models.feature_maps import FEATURE_MAPS, FeatureMap
from models.ops import boolean_mask
from models.rotary import frequencies

COMPLEXITY = ("L", "L")
DT_MIN, DT_MAX = 1e-3, 1e-1  # bounds of the initial step of `decay=vector`, as in S4D


def cosformer_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    max_len: int | Array | None = None,
    causal: bool = False,
    eps: float = 1e-6,
    implementation: Literal["xla", "pallas"] = "xla",
    feature_map: FeatureMap = "relu",
    log_decay: Array | None = None,
    rope: bool = False,
) -> Array:
    """Compute attention with cosine re-weighting in linear time and memory; sums are in at least float32.

    No mixer option selects the causal form; it is available as a function. It has neither decay nor rotation.

    Args:
      q:       [B, Lq, H, K]
      k:       [B, Lk, H, K]
      v:       [B, Lk, H, V]
      mask:    [B, Lk], bool or integers 0 and 1, True = real key; None: all keys are real
      max_len: M. An int: the same for all examples, at least Lq and Lk. An integer array [B]: one M per example, at
               least its number of real tokens; positions beyond it have the angle pi/2, and 0 is replaced by 1.
               None: max(Lq, Lk), so the result changes with the amount of padding
      causal:  query i sees only the keys j <= i (needs Lq = Lk)
      eps:     lower bound of the denominator
      implementation: "pallas" = GPU kernels of the bidirectional form (`models/cosformer_kernel.py`), for head widths
               that are powers of two from 16, without the options below. No GPU has yet shown that they are faster, so
               no mixer uses them
      feature_map: phi, one of `models.feature_maps.FEATURE_MAPS`
      log_decay: logarithm of the decay g, at most 0: [H, 1], or [H, K] for each channel (needs Lq = Lk); None: no decay
      rope:    rotate the features of the numerator

    Returns:
      [B, Lq, H, V], dtype of v; zeros where a query has no real key

    Raises:
      ValueError: shapes do not match; the mask is neither bool nor integers 0 and 1; max_len is neither an int nor an
        integer array [B], or is an int smaller than Lq or Lk, for which the cosine would be negative; the
        implementation or the feature map is unknown; the implementation or the causal form lacks an option.
    """
    mask = None if mask is None else boolean_mask(mask)
    (b, lq, h, width), lk = q.shape, k.shape[1]
    if k.shape != (b, lk, h, width) or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape} are not [B, Lq, H, K], [B, Lk, H, K], [B, Lk, H, V]")
    if mask is not None and mask.shape != (b, lk):
        raise ValueError(f"mask {mask.shape} is not [B, Lk] = {(b, lk)}")
    for form, selected in (("the causal form", causal), ("decay", log_decay is not None)):
        if selected and lq != lk:
            raise ValueError(f"{form} needs as many queries as keys, not {lq} and {lk}")
    if feature_map not in FEATURE_MAPS:
        raise ValueError(f"feature_map {feature_map!r} is not one of {', '.join(FEATURE_MAPS)}")
    if log_decay is not None and log_decay.shape not in ((h, 1), (h, width)):
        raise ValueError(f"log_decay {log_decay.shape} is neither [H, 1] = {(h, 1)} nor [H, K] = {(h, width)}")
    if causal and (log_decay is not None or rope):
        raise ValueError("the causal form has neither decay nor rotation")
    max_len = max(lq, lk) if max_len is None else max_len
    if isinstance(max_len, Array | np.ndarray):
        if max_len.shape != (b,) or not jnp.issubdtype(max_len.dtype, jnp.integer):
            raise ValueError(f"max_len {max_len.dtype}{list(max_len.shape)} is not an int or an integer array [{b}]")
    elif max_len < max(lq, lk):
        raise ValueError(f"max_len {max_len} is shorter than an input ({lq} queries, {lk} keys)")

    dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
    if implementation == "pallas":
        if feature_map != "relu" or log_decay is not None or rope:
            raise ValueError("implementation 'pallas' has ReLU features without decay or rotation; use 'xla'")
        return _by_kernel(q, k, v, mask, max_len, causal, eps)
    if implementation != "xla":
        raise ValueError(f"implementation {implementation!r} is not one of xla, pallas")
    q, k, v = (x.astype(accum_dtype).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L, K]
    q, k = FEATURE_MAPS[feature_map](q), FEATURE_MAPS[feature_map](k)
    if mask is not None:
        k, v = (jnp.where(mask[:, None, :, None], x, 0) for x in (k, v))
    angles = frequencies(width) if rope else None
    if causal:
        y = cosine_attention.causal(q, k, v, max_len, eps)
    elif log_decay is None:
        y = cosine_attention.bidirectional(q, k, v, max_len, eps, angles)
    else:
        y = cosine_attention.decayed(q, k, v, max_len, eps, log_decay, angles)
    return y.swapaxes(1, 2).astype(dtype)


def _by_kernel(
    q: Array, k: Array, v: Array, mask: Array | None, max_len: int | Array, causal: bool, eps: float
) -> Array:
    """Attend to all keys by the kernels of `models/cosformer_kernel.py`; shapes as in `cosformer_attention`."""
    if causal:
        raise ValueError("implementation 'pallas' has no causal form; use 'xla'")
    try:
        from models.cosformer_kernel import kernel_attention
    except ImportError as error:
        raise ValueError(
            f"implementation 'pallas' needs Pallas, which is not available ({error}); use 'xla'"
        ) from error

    def weights(x: Array) -> Array:  # [1 or B, 2, L]
        heads_first = jax.ShapeDtypeStruct((1, 1, x.shape[1], 1), jnp.promote_types(q.dtype, jnp.float32))
        return jnp.stack([jnp.asarray(w)[:, 0, :, 0] for w in cos_sin_weights(heads_first, max_len)], 1)

    key_weights = weights(k) if mask is None else jnp.where(mask[:, None], weights(k), 0)
    return kernel_attention(q, k, v, weights(q), key_weights, eps)


class CosFormer(QKVAttention):
    """Bidirectional cosFormer attention.

    eps:         lower bound of the denominator
    m:           choice of M: max_len = `dims.max_len`, own = the example's number of real tokens
    feature_map: phi, see the description of this file
    decay:       decay of the weights with the distance: none, scalar = of each head, vector = of each channel of a head
    rope:        rotate the features of the numerator
    """

    def __init__(
        self,
        dims: Dims,
        *,
        eps: float = 1e-6,
        m: Literal["max_len", "own"] = "max_len",
        feature_map: FeatureMap = "relu",
        decay: Literal["none", "scalar", "vector"] = "none",
        rope: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(MIN_EPS, 1.0, eps=eps)
        if rope and dims.head_dim < 2:
            raise ValueError("option rope=True: needs heads of width 2 or more, not 1")
        super().__init__(dims, rngs=rngs)
        self.eps, self.m, self.feature_map, self.decay, self.rope = eps, m, feature_map, decay, rope
        heads, width = dims.num_heads, dims.head_dim
        if decay == "scalar":
            self.decay_logit = nnx.Param(jax.random.normal(rngs.params(), (heads,)), decay=False)
        if decay == "vector":
            # The two channels that are rotated together share a decay: else weights would not see distances alone.
            rates = width - width // 2 if rope else width
            log_steps = jax.random.uniform(rngs.params(), (heads, 1), minval=np.log(DT_MIN), maxval=np.log(DT_MAX))
            legs = np.log(np.arange(1.0, rates + 1)).astype(np.float32)  # of the eigenvalues' sizes
            self.log_rates = nnx.Param(log_steps + legs[None], decay=False)

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        max_len = mask.sum(1) if self.m == "own" else self.dims.max_len
        return cosformer_attention(
            q, k, v, mask=mask, max_len=max_len, eps=self.eps,
            feature_map=self.feature_map, log_decay=self._log_decay(), rope=self.rope,
        )  # fmt: skip

    def _log_decay(self) -> Array | None:
        """Return the logarithm of the decay, [H, 1] or [H, K]."""
        if self.decay == "none":
            return None
        if self.decay == "scalar":
            return jax.nn.log_sigmoid(self.decay_logit[...])[:, None]
        log_decay = -jnp.exp(self.log_rates[...])
        if not self.rope:
            return log_decay
        pairs = self.dims.head_dim // 2
        return jnp.concatenate([log_decay[:, :pairs], log_decay], 1)
