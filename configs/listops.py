"""ListOps: 10 classes, 500 to 2,000 symbols.

python run_lra.py train --task listops --mixer cosformer --protocol laptop --seed 0
"""

from __future__ import annotations

from configs.shared import BUSY_CORE, ONE_CORE, laptop, lra, lra_forms, lra_model, lra_train, measured, quick, small
from lra.protocols import SelfPretraining, Shuffle

PROTOCOLS = {
    "quick": quick("listops", "short", steps=500, minutes=f"1.1 {ONE_CORE}", expected=measured(33.4)),
    "laptop": laptop(
        "listops",
        max_len=2_000,
        steps=2_500,
        batch_size=32,
        warmup=1_000,
        eval_every=500,
        minutes=f"33 {BUSY_CORE}",
        expected=measured(35.8),
    ),
    "small": small(
        "listops",
        max_len=2_000,
        batch_size=32,
        learning_rate=1e-4,
        warmup=1_000,
        eval_every=500,
        softmax=38.37,
        options={"bigbird": {"random_span": 640}},
    ),
    "lra": lra(
        "listops",
        max_len=2_000,
        model=lra_model(
            layers=4,
            d_model=512,
            heads=8,
            qkv_dim=512,
            mlp_dim=1024,
            dropout=0.1,
            attention_dropout=0.1,
            positions="sinusoidal",
            pooling="cls",
            head=(1024,),
        ),
        train=lra_train(
            steps=5_000,
            batch_size=32,
            learning_rate=0.05,
            warmup=1_000,
            schedule="rsqrt",
            weight_decay=0.1,
            eval_every=500,
        ),
        forms=lra_forms(
            "listops/configs",
            options={"performer": {"features": 2, "redraw": True}},
            model={"sinkhorn": {"pooling": "mean", "head": ()}},
        ),
        softmax=36.37,
        linear=16.13,
        cosformer=37.90,
    ),
}

RECIPES = (Shuffle(first_operator=10, end=14, max_depth=10), SelfPretraining(masked=0.1))
