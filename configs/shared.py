"""What the protocols of all tasks have in common.

`lra`     the configuration files of google-research/long-range-arena (not the appendix of the paper, which
          differs; its authors name the files as what counts), arXiv 2011.04006.
`small`   the model and schedule of Skyformer, arXiv 2111.00035: two layers of width 64. Deviations: mean pooling
          divides by the true length (there by the padded one), pixel 0 is a token (there it is padding), float32
          (there fp16), no example is dropped, the best validation is chosen among all (there after 20 % of the steps).
`laptop`  the model of `small` with fewer steps at a higher rate, so that two cores give true numbers in an hour.
`quick`   inputs of at most 256 bytes; columns of their own. It shows that everything works and that mixers learn.
"""

from __future__ import annotations

from dataclasses import replace

from lra.config import Model, Train

LRA_ABOUT = "the configuration files of the original Long-Range Arena"
SMALL_ABOUT = "two layers of width 64, 50,000 steps (Skyformer's model and schedule)"
LAPTOP_ABOUT = "the model of `small`, few steps at a higher rate: true numbers on two cores"
QUICK_ABOUT = "inputs of at most 256 bytes, minutes a run: shows that everything works"

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

# A few hundred to a few thousand steps want a higher rate, and no dropout: nothing overfits in so short a time.
QUICK = replace(SMALL, dropout=0.0, attention_dropout=0.0)
QUICK_TRAIN = replace(SMALL_TRAIN, steps=1_000, learning_rate=2e-3, warmup=100, eval_every=250)

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


def lra_model(layers: int, d_model: int, heads: int, qkv_dim: int, mlp_dim: int, **changes: object) -> Model:
    """The encoder of the original suite: no bias in attention, N(0, 1) embeddings, CLS."""
    base = Model(
        layers=layers,
        d_model=d_model,
        heads=heads,
        qkv_dim=qkv_dim,
        mlp_dim=mlp_dim,
        dropout=0.1,
        attention_dropout=0.1,
        positions="sinusoidal",
        pooling="cls",
        head=(mlp_dim,),
    )
    return replace(base, **changes)  # type: ignore[arg-type]
