"""Text: IMDB reviews as bytes, 2 classes. The last checkpoint is tested, because there is no validation split.

    python run_lra.py train --task text --mixer cosformer --protocol laptop --seed 0

`lra` has length 1,000 as in the published configuration file; the paper's table reports the best of 1K to 4K.
"""

from __future__ import annotations

from configs.shared import BUSY_CORE, ONE_CORE, laptop, lra, lra_forms, lra_model, lra_train, measured, quick, small
from lra.protocols import Denoise, SelfPretraining

SAMPLE = "b90ad14025230274b57875243ddb6e4949a31104bf730f91e56d3ad469adc512"  # SHA-256 of the generated sample
COPY = "1e15d283137b1ebea2bd0d9464a1b0c12dfe511b69a11db1b68d07a587b8cc11"  # of an unofficial copy of the reviews

PROTOCOLS = {
    "quick": quick(
        "text", "cut", steps=200, source="sample", minutes=f"0.5 {ONE_CORE}", expected=measured(69.4, SAMPLE)
    ),
    "laptop": laptop(
        "text",
        max_len=4_000,
        steps=1_500,
        batch_size=32,
        warmup=200,
        eval_every=500,
        minutes=f"28 {BUSY_CORE}",
        expected=measured(64.7, COPY),
    ),
    "small": small(
        "text",
        max_len=4_000,
        batch_size=32,
        learning_rate=1e-4,
        warmup=80,
        eval_every=500,
        softmax=61.95,
        options={"bigbird": {"random_span": 1024}, "reformer": {"buckets": 128}},
    ),
    "lra": lra(
        "text",
        max_len=1_000,
        model=lra_model(
            layers=4,
            d_model=256,
            heads=4,
            qkv_dim=256,
            mlp_dim=1024,
            dropout=0.1,
            attention_dropout=0.1,
            positions="sinusoidal",
            pooling="cls",
            head=(1024,),
        ),
        train=lra_train(
            steps=20_000,
            batch_size=32,
            learning_rate=0.05,
            warmup=8_000,
            schedule="rsqrt",
            weight_decay=0.1,
            eval_every=500,
        ),
        forms=lra_forms("text_classification/configs", model={"sinkhorn": {"pooling": "mean", "head": ()}}),
        softmax=64.27,
        linear=65.90,
        cosformer=63.41,
    ),
}

RECIPES = (Denoise(), SelfPretraining(masked=0.15))
