"""Pathfinder: are the two marked points joined by one dashed path? 2 classes.

python run_lra.py train --task pathfinder --mixer cosformer --protocol laptop --seed 0
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

TASK = "pathfinder"

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
    ),
    "laptop": Protocol(
        task=TASK,
        name="laptop",
        version=1,
        about=LAPTOP_ABOUT,
        variant="full",
        max_len=1_024,
        model=SMALL,
        train=replace(SMALL_TRAIN, steps=10_000, batch_size=64, learning_rate=1e-3, warmup=300),
    ),
    "small": Protocol(
        task=TASK,
        name="small",
        version=1,
        about=SMALL_ABOUT,
        variant="full",
        max_len=1_024,
        model=SMALL,
        train=replace(SMALL_TRAIN, batch_size=128, learning_rate=2e-4, warmup=312),
    ),
    "lra": Protocol(
        task=TASK,
        name="lra",
        version=1,
        about=LRA_ABOUT,
        variant="full",
        max_len=1_024,
        model=lra_model(4, 32, 4, 16, 32, dropout=0.2, pooling="mean"),
        train=replace(
            LRA_TRAIN,
            steps=62_400,
            batch_size=512,
            learning_rate=1e-3,
            warmup=312,
            schedule="cosine",
            weight_decay=0.0,
        ),
    ),
}
