"""Retrieval: does the first ACL paper cite the second? Bytes, pairs, 2 classes.

    python run_lra.py train --task retrieval --mixer cosformer --protocol laptop --seed 0

`lra` is as published: the state of the first byte, [a, b] into the head, a learning rate that is still warming up at
the end. Ports with mean pooling and [a, b, a*b, a-b] (`small`) score 20 points more and never share a column with it.
"""

from __future__ import annotations

from configs.shared import ONE_CORE, laptop, lra, lra_forms, lra_model, lra_train, measured, quick, small
from lra.protocols import Denoise, SelfPretraining

SAMPLE = "fbc138f04e06eefd80117fc330a7c99f98f4e12fd5b40243ca2a70de493ba3ab"  # SHA-256 of the generated sample

PROTOCOLS = {
    "quick": quick(
        "retrieval",
        "cut",
        steps=200,
        batch_size=16,
        source="sample",
        minutes=f"0.6 {ONE_CORE}",
        expected=measured(73.0, SAMPLE),
        pair="nli",
    ),
    "laptop": laptop("retrieval", max_len=4_000, steps=2_000, batch_size=16, warmup=200, eval_every=250, pair="nli"),
    "small": small(
        "retrieval",
        max_len=4_000,
        batch_size=16,
        learning_rate=2e-4,
        warmup=800,
        eval_every=1_000,
        softmax=80.69,
        options={"bigbird": {"random_span": 1024}, "reformer": {"buckets": 128}},
        pair="nli",
    ),
    "lra": lra(
        "retrieval",
        max_len=4_000,
        model=lra_model(
            layers=4,
            d_model=128,
            heads=4,
            qkv_dim=128,
            mlp_dim=512,
            dropout=0.1,
            attention_dropout=0.1,
            positions="sinusoidal",
            pooling="first",
            head=(512, 256),
            pair="concat",
        ),
        train=lra_train(
            steps=5_000,
            batch_size=32,
            learning_rate=0.05,
            warmup=8_000,
            schedule="rsqrt",
            weight_decay=0.1,
            eval_every=500,
        ),
        forms=lra_forms("matching/configs"),
        softmax=57.46,
        linear=53.09,
        cosformer=61.36,
    ),
}

RECIPES = (Denoise(), SelfPretraining(masked=0.15))
