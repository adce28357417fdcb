"""Retrieval: does the first ACL paper cite the second? Bytes, pairs, 2 classes.

    python run_lra.py train --task retrieval --mixer cosformer --protocol laptop --seed 0

`lra` is as published: the state of the first byte, [a, b] into the head, a rate that never leaves its warm-up.
Ports with mean pooling and [a, b, a*b, a-b] (`small`) score 20 points more: never one column.
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

TASK = "retrieval"

PROTOCOLS = {
    "quick": Protocol(
        task=TASK,
        name="quick",
        version=1,
        about=QUICK_ABOUT,
        variant="cut",
        max_len=256,
        model=replace(QUICK, pair="nli"),
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
        model=replace(SMALL, pair="nli"),
        train=replace(SMALL_TRAIN, steps=2_000, batch_size=16, learning_rate=1e-3, warmup=200, eval_every=250),
    ),
    "small": Protocol(
        task=TASK,
        name="small",
        version=1,
        about=SMALL_ABOUT,
        variant="full",
        max_len=4_000,
        model=replace(SMALL, pair="nli"),
        train=replace(SMALL_TRAIN, batch_size=16, learning_rate=2e-4, warmup=800, eval_every=1_000),
    ),
    "lra": Protocol(
        task=TASK,
        name="lra",
        version=1,
        about=LRA_ABOUT,
        variant="full",
        max_len=4_000,
        model=lra_model(4, 128, 4, 128, 512, pooling="first", head=(512, 256), pair="concat"),
        train=replace(LRA_TRAIN, warmup=8_000),
    ),
}
