"""AFT-simple (Zhai et al., 2021, arXiv:2105.14103): y_i = sigmoid(q_i) * sum_j softmax_j(k_j) * v_j per feature."""

import jax

from models.core import Dims, QKVAttention
from models.ops import masked_softmax

COMPLEXITY = ("L", "L")  # how time and memory grow with the length


class AFT(QKVAttention):
    """Keys are divided by `temperature`."""

    def __init__(self, dims: Dims, *, temperature: float = 1.0, rngs):
        super().__init__(dims, rngs=rngs)
        self.temperature = temperature

    def attend(self, q, k, v, mask, rng_keys):  # q, k, v [B, L, H, K]; mask [B, L], True = real token
        weights = masked_softmax(k / self.temperature, mask[:, :, None, None], axis=1)
        return jax.nn.sigmoid(q) * (weights.astype(v.dtype) * v).sum(1, keepdims=True)
