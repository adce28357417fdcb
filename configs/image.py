"""Image: CIFAR-10 in gray, pixel by pixel, 10 classes.

python run_lra.py train --task image --mixer cosformer --protocol laptop --seed 0
"""

from __future__ import annotations

from configs.shared import LRA_OPTIONS, ONE_CORE, laptop, lra, lra_forms, lra_model, lra_train, measured, quick, small
from lra.protocols import Augment, SelfPretraining

SAMPLE = "5ff2aeee93650bc8925c9dd5659c0b1fa37e555d8416c1deb740f44379a93629"  # SHA-256 of the generated sample

PROTOCOLS = {
    "quick": quick(
        "image", "16", steps=200, source="sample", minutes=f"0.6 {ONE_CORE}", expected=measured(33.1, SAMPLE)
    ),
    "laptop": laptop("image", max_len=1_024, steps=5_000, batch_size=64, warmup=200, eval_every=500),
    "small": small(
        "image", max_len=1_024, batch_size=256, learning_rate=1e-4, warmup=175, eval_every=50, softmax=40.57
    ),
    "lra": lra(
        "image",
        max_len=1_024,
        model=lra_model(
            layers=1,
            d_model=128,
            heads=8,
            qkv_dim=64,
            mlp_dim=128,
            dropout=0.3,
            attention_dropout=0.2,
            positions="learned",
            pooling="cls",
            head=(128,),
        ),
        train=lra_train(
            steps=35_000,
            batch_size=256,
            learning_rate=5e-4,
            warmup=175,
            schedule="cosine",
            weight_decay=0.0,
            eval_every=175,
        ),
        forms=lra_forms(
            "image/configs/cifar10",
            options={
                "local": {**LRA_OPTIONS["local"], "window": 64},
                "sinkhorn": {**LRA_OPTIONS["sinkhorn"], "window": 64},
            },
            model={
                "bigbird": {"heads": 4},  # the file says `num_head`, which its model does not accept
                "local": {"heads": 2, "pooling": "mean"},
                "longformer": {"layers": 4, "heads": 4, "pooling": "mean"},
                "reformer": {"layers": 4, "d_model": 64, "qkv_dim": 32, "mlp_dim": 64, "head": (64,)},
                "sinkhorn": {
                    "heads": 1,
                    "d_model": 32,
                    "qkv_dim": 32,
                    "mlp_dim": 64,
                    "dropout": 0.1,
                    "pooling": "mean",
                    "head": (),
                },
            },
            train={"sinkhorn": {"weight_decay": 0.7}},
        ),
        softmax=42.44,
        linear=42.34,
        cosformer=43.17,
    ),
}

RECIPES = (Augment(horizontal=True, vertical=False, shift=0.1), SelfPretraining(masked=0.5))
