"""Write jax_linear_attention.npz: outputs of recurrences by the package jax-linear-attention, which others wrote.

    pip install jax-linear-attention==0.1.0      # needs Python 3.12 or newer
    python tests/data/jax_linear_attention.py

tests/models/test_other_implementations.py compares them with those of models/.
"""

from pathlib import Path

import numpy as np
from jla.ops import reference  # type: ignore[import-not-found,unused-ignore]

LENGTH, HEADS, KEY, VALUE = 70, 2, 8, 6


def main() -> None:
    rng = np.random.RandomState(20)

    def normal(*shape: int) -> np.ndarray:
        return rng.randn(1, LENGTH, HEADS, *shape).astype(np.float32)

    inputs = {"q": normal(KEY), "k": normal(KEY), "v": normal(VALUE), "input_gate": normal()}
    inputs["unit_k"] = inputs["k"] / np.linalg.norm(inputs["k"], axis=-1, keepdims=True)
    inputs["scalar_decay"] = -0.2 * np.abs(normal())  # logarithms
    inputs["vector_decay"] = -0.2 * np.abs(normal(KEY))
    inputs["beta"] = 1 / (1 + np.exp(-normal()))
    q, k, v, unit_k, scalar, beta = (inputs[n] for n in ("q", "k", "v", "unit_k", "scalar_decay", "beta"))
    outputs = {
        "simple_gla": reference.simple_gla(q, k, v, scalar, scale=1.0),
        "gla": reference.gla(q, k, v, inputs["vector_decay"], scale=1.0),
        "delta_rule": reference.delta_rule(q, unit_k, v, beta, scale=1.0),
        "gated_delta_rule": reference.gated_delta_rule(q, unit_k, v, scalar, beta, scale=1.0),
        "mlstm": reference.mlstm(q, k, v, scalar, inputs["input_gate"], eps=0.0),
    }
    arrays = inputs | {f"output_of_{name}": np.asarray(output) for name, (output, _) in outputs.items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    main()
