"""Image: CIFAR-10 in gray, pixel by pixel, 10 classes.

python run_lra.py train --task image --mixer cosformer --protocol laptop --seed 0
"""

from __future__ import annotations

from dataclasses import replace

from configs.shared import (
    LAPTOP_ABOUT,
    LRA_ABOUT,
    LRA_TRAIN,
    QUICK,
    QUICK_ABOUT,
    QUICK_TRAIN,
    SMALL,
    SMALL_ABOUT,
    SMALL_TRAIN,
    lra_model,
)
from lra.config import Protocol

TASK = "image"

PROTOCOLS = {
    "quick": Protocol(
        task=TASK,
        name="quick",
        version=1,
        about=QUICK_ABOUT,
        variant="16",
        max_len=256,
        model=QUICK,
        train=QUICK_TRAIN,
        allow_sample=True,
    ),
    "laptop": Protocol(
        task=TASK,
        name="laptop",
        version=1,
        about=LAPTOP_ABOUT,
        variant="full",
        max_len=1_024,
        model=SMALL,
        train=replace(SMALL_TRAIN, steps=5_000, batch_size=64, learning_rate=1e-3, warmup=200),
    ),
    "small": Protocol(
        task=TASK,
        name="small",
        version=1,
        about=SMALL_ABOUT,
        variant="full",
        max_len=1_024,
        model=SMALL,
        train=replace(SMALL_TRAIN, batch_size=256, warmup=175),
    ),
    "lra": Protocol(
        task=TASK,
        name="lra",
        version=1,
        about=LRA_ABOUT,
        variant="full",
        max_len=1_024,
        model=lra_model(1, 128, 8, 64, 128, dropout=0.3, attention_dropout=0.2, positions="learned"),
        train=replace(
            LRA_TRAIN,
            steps=35_000,
            batch_size=256,
            learning_rate=5e-4,
            warmup=175,
            schedule="cosine",
            weight_decay=0.0,
        ),
    ),
}
