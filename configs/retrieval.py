"""Retrieval: does the first ACL paper cite the second? Bytes, pairs, 2 classes.

    python run_lra.py train --task retrieval --mixer cosformer --protocol laptop --seed 0

`lra` is as published: the state of the first byte, [a, b] into the head, a rate that never leaves its warm-up.
Ports with mean pooling and [a, b, a*b, a-b] (`small`) score 20 points more: never one column.
"""

from __future__ import annotations

from configs.shared import TWO_CORES, laptop, lra, measured, quick, small

SAMPLE = "fbc138f04e06eefd80117fc330a7c99f98f4e12fd5b40243ca2a70de493ba3ab"  # SHA-256 of the generated sample

PROTOCOLS = {
    "quick": quick(
        "retrieval",
        "cut",
        minutes=f"0.4 {TWO_CORES}",
        expected=measured(76.0, SAMPLE),
        pair="nli",
        steps=400,
        batch_size=16,
    ),
    "laptop": laptop("retrieval", 4_000, pair="nli", steps=2_000, batch_size=16, warmup=200, eval_every=250),
    "small": small(
        "retrieval",
        4_000,
        softmax=80.69,
        pair="nli",
        batch_size=16,
        learning_rate=2e-4,
        warmup=800,
        eval_every=1_000,
    ),
    "lra": lra(
        "retrieval",
        4_000,
        model={
            "d_model": 128,
            "qkv_dim": 128,
            "mlp_dim": 512,
            "pooling": "first",
            "head": (512, 256),
            "pair": "concat",
        },
        train={"warmup": 8_000},
        softmax=57.46,
        linear=53.09,
        cosformer=61.36,
    ),
}
