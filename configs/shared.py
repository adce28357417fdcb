"""What the protocols of all tasks have in common.

`lra`     the configuration files of google-research/long-range-arena (not the appendix of the paper, which
          differs; its authors name the files as what counts), arXiv 2011.04006.
`small`   the model and schedule of Skyformer, arXiv 2111.00035: two layers of width 64. Deviations: mean pooling
          divides by the true length (there by the padded one), pixel 0 is a token (there it is padding), float32
          (there fp16), no example is dropped, the best validation is chosen among all (there after 20 % of the
          steps), and Text, which has no validation split, tests its last checkpoint (there the best on the test set).
`laptop`  the model of `small` with fewer steps at a higher rate, so that two cores give true numbers in an hour.
`quick`   inputs of at most 256 bytes; columns of their own. It shows that everything works and that mixers learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lra.config import Expected, Model, Protocol, Train

TWO_CORES = "minutes with cosformer on two cores of an AMD EPYC"
BUSY_CORE = "minutes with cosformer on one or two cores of an AMD EPYC that had other work too"


def measured(cosformer: float, data_sha256: str | None = None) -> dict[str, Expected]:
    """Return the suite's own first measurement, in per cent, where nothing is published for the protocol.

    Args:
      data_sha256: of the data that it was measured on, if these are not the task's own: a generated sample, or a copy
    """
    return {"cosformer": Expected(cosformer, 2.0, "measured here first, one seed", data_sha256)}


SMALL = Model(
    layers=2,
    d_model=64,
    heads=2,
    qkv_dim=64,
    mlp_dim=128,
    dropout=0.1,
    attention_dropout=0.1,
    positions="learned",
    pooling="mean",
    head=(128,),
    bias=True,
    embed_std=0.02,
)

SMALL_TRAIN = Train(
    steps=50_000,
    batch_size=32,
    learning_rate=1e-4,
    warmup=1_000,
    schedule="onecycle",
    weight_decay=0.0,
    b1=0.95,
    b2=0.999,
    eps=1e-6,
    clip_value=1.0,
    eval_every=500,
)

LRA_TRAIN = Train(
    steps=5_000,
    batch_size=32,
    learning_rate=0.05,
    warmup=1_000,
    schedule="rsqrt",
    weight_decay=0.1,
    b1=0.9,
    b2=0.98,
    eps=1e-9,
    clip_value=None,
    eval_every=500,
)


def lra(
    task: str,
    max_len: int,
    *,
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    softmax: float,
    linear: float,
    cosformer: float,
) -> Protocol:
    """The original suite: no bias in attention, N(0, 1) embeddings. Scores in per cent, as published."""
    base = Model(
        layers=4,
        d_model=0,
        heads=4,
        qkv_dim=0,
        mlp_dim=0,
        dropout=0.1,
        attention_dropout=0.1,
        positions="sinusoidal",
        pooling="cls",
        head=(),
    )
    paper = "README of google-research/long-range-arena (arXiv 2011.04006)"
    return Protocol(
        task=task,
        name="lra",
        version=1,
        about="the configuration files of the original Long-Range Arena",
        variant="full",
        max_len=max_len,
        model=replace(base, **model),
        train=replace(LRA_TRAIN, **train),
        expected={
            "softmax": Expected(softmax, 2.0, paper),
            "linear": Expected(linear, 2.0, paper),
            "cosformer": Expected(cosformer, 2.0, "cosFormer, arXiv 2202.08791; hyper-parameters not published"),
        },
    )


def small(task: str, max_len: int, *, softmax: float, pair: Any = None, **train: Any) -> Protocol:
    return Protocol(
        task=task,
        name="small",
        version=1,
        about="two layers of width 64, 50,000 steps (Skyformer's model and schedule)",
        variant="full",
        max_len=max_len,
        model=replace(SMALL, pair=pair),
        train=replace(SMALL_TRAIN, **train),
        expected={"softmax": Expected(softmax, 2.0, "Skyformer, arXiv 2111.00035; mean of three seeds")},
    )


def laptop(
    task: str,
    max_len: int,
    *,
    minutes: str = "",
    expected: Mapping[str, Expected] | None = None,
    pair: Any = None,
    **train: Any,
) -> Protocol:
    return Protocol(
        task=task,
        name="laptop",
        version=1,
        about="the model of `small`, few steps at a higher rate: true numbers on two cores",
        variant="full",
        max_len=max_len,
        model=replace(SMALL, pair=pair),
        train=replace(SMALL_TRAIN, **{"learning_rate": 1e-3, **train}),
        expected=expected or {},
        minutes=minutes,
    )


def quick(
    task: str, variant: str, *, minutes: str, expected: Mapping[str, Expected], pair: Any = None, **train: Any
) -> Protocol:
    """Without dropout, for nothing overfits in so few steps; at twice the rate of `laptop`."""
    return Protocol(
        task=task,
        name="quick",
        version=1,
        about="inputs of at most 256 bytes, minutes a run: shows that everything works",
        variant=variant,
        max_len=256,
        model=replace(SMALL, dropout=0.0, attention_dropout=0.0, pair=pair),
        train=replace(SMALL_TRAIN, **{"learning_rate": 2e-3, "warmup": 100, "eval_every": 100, **train}),
        allow_sample=True,
        expected=expected,
        minutes=minutes,
    )
