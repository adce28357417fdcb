"""Pathfinder: are the two marked points joined by one dashed path? 2 classes.

    python run_lra.py train --task pathfinder --mixer cosformer --protocol laptop --seed 0

Path-X is `--variant 128 --max-len 16384`.
"""

from __future__ import annotations

from configs.shared import TWO_CORES, laptop, lra, measured, quick, small

PROTOCOLS = {
    "quick": quick("pathfinder", "16", minutes=f"0.7 {TWO_CORES}", expected=measured(49.9), steps=600),
    "laptop": laptop("pathfinder", 1_024, steps=10_000, batch_size=64, warmup=300),
    "small": small("pathfinder", 1_024, softmax=65.26, batch_size=128, learning_rate=2e-4, warmup=312),
    "lra": lra(
        "pathfinder",
        1_024,
        model={"d_model": 32, "qkv_dim": 16, "mlp_dim": 32, "dropout": 0.2, "pooling": "mean", "head": (32,)},
        train={
            "steps": 62_400,
            "batch_size": 512,
            "learning_rate": 1e-3,
            "warmup": 312,
            "schedule": "cosine",
            "weight_decay": 0.0,
        },
        softmax=71.40,
        linear=75.30,
        cosformer=70.33,
    ),
}
