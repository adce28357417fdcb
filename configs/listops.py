"""ListOps: 10 classes, 500 to 2,000 symbols.

python run_lra.py train --task listops --mixer cosformer --protocol laptop --seed 0
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

TASK = "listops"

PROTOCOLS = {
    "quick": Protocol(
        task=TASK,
        name="quick",
        version=1,
        about=QUICK_ABOUT,
        variant="short",
        max_len=256,
        model=QUICK,
        train=replace(QUICK_TRAIN, steps=2_000),
    ),
    "laptop": Protocol(
        task=TASK,
        name="laptop",
        version=1,
        about=LAPTOP_ABOUT,
        variant="full",
        max_len=2_000,
        model=SMALL,
        train=replace(SMALL_TRAIN, steps=2_500, learning_rate=1e-3),
    ),
    "small": Protocol(
        task=TASK,
        name="small",
        version=1,
        about=SMALL_ABOUT,
        variant="full",
        max_len=2_000,
        model=SMALL,
        train=SMALL_TRAIN,
    ),
    "lra": Protocol(
        task=TASK,
        name="lra",
        version=1,
        about=LRA_ABOUT,
        variant="full",
        max_len=2_000,
        model=lra_model(4, 512, 8, 512, 1024),
        train=LRA_TRAIN,
    ),
}
