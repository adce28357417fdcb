"""Image: CIFAR-10 in gray, pixel by pixel, 10 classes.

python run_lra.py train --task image --mixer cosformer --protocol laptop --seed 0
"""

from __future__ import annotations

from configs.shared import TWO_CORES, laptop, lra, measured, quick, small

SAMPLE = "5ff2aeee93650bc8925c9dd5659c0b1fa37e555d8416c1deb740f44379a93629"  # SHA-256 of the generated sample

PROTOCOLS = {
    "quick": quick("image", "16", minutes=f"0.6 {TWO_CORES}", expected=measured(43.9, SAMPLE), steps=600),
    "laptop": laptop("image", 1_024, steps=5_000, batch_size=64, warmup=200),
    "small": small("image", 1_024, softmax=40.57, batch_size=256, warmup=175),
    "lra": lra(
        "image",
        1_024,
        model={
            "layers": 1,
            "d_model": 128,
            "heads": 8,
            "qkv_dim": 64,
            "mlp_dim": 128,
            "dropout": 0.3,
            "attention_dropout": 0.2,
            "positions": "learned",
            "head": (128,),
        },
        train={
            "steps": 35_000,
            "batch_size": 256,
            "learning_rate": 5e-4,
            "warmup": 175,
            "schedule": "cosine",
            "weight_decay": 0.0,
        },
        softmax=42.44,
        linear=42.34,
        cosformer=43.17,
    ),
}
