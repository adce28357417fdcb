"""Text: IMDB reviews as bytes, 2 classes. The last checkpoint is tested; there is no validation split.

    python run_lra.py train --task text --mixer cosformer --protocol laptop --seed 0

`lra` has length 1,000 as in the published configuration file; the paper's table reports the best of 1K to 4K.
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

TASK = "text"

PROTOCOLS = {
    "quick": Protocol(
        task=TASK,
        name="quick",
        version=1,
        about=QUICK_ABOUT,
        variant="cut",
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
        max_len=4_000,
        model=SMALL,
        train=replace(SMALL_TRAIN, steps=1_500, learning_rate=1e-3, warmup=200),
    ),
    "small": Protocol(
        task=TASK,
        name="small",
        version=1,
        about=SMALL_ABOUT,
        variant="full",
        max_len=4_000,
        model=SMALL,
        train=replace(SMALL_TRAIN, warmup=80),
    ),
    "lra": Protocol(
        task=TASK,
        name="lra",
        version=1,
        about=LRA_ABOUT,
        variant="full",
        max_len=1_000,
        model=lra_model(4, 256, 4, 256, 1024),
        train=replace(LRA_TRAIN, steps=20_000, warmup=8_000),
    ),
}
