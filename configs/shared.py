"""What the protocols of all tasks have in common.

`lra`     the configuration files of google-research/long-range-arena at commit cd31e5c (arXiv 2011.04006).
`small`   model and schedule of Skyformer (pkuzengqi/Skyformer at commit cd4f6cc, arXiv 2111.00035).
`laptop`  the sizes of `small`, fewer steps at a higher learning rate: about an hour on two CPU cores.
`quick`   generated inputs of at most 256 bytes, about a minute a run: a smoke test of everything.

docs/protocols.md lists every number with its source, and every deviation from the source with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lra.protocols import Expected, Form, Model, Protocol, Train

ONE_CORE = "minutes with cosformer on one core of an AMD EPYC"
BUSY_CORE = "minutes with cosformer on one or two cores of an AMD EPYC that had other work too"
LRA_PAPER = "README of google-research/long-range-arena (arXiv 2011.04006)"
COSFORMER_PAPER = "cosFormer, arXiv 2202.08791; its hyper-parameters are not published"
SKYFORMER_PAPER = "Skyformer, arXiv 2111.00035; mean of three seeds"

Pair = Literal["nli"] | None


def measured(cosformer: float, data_sha256: str | None = None) -> dict[str, Expected]:
    """Return the suite's own first measurement, in per cent, where nothing is published for the protocol.

    Args:
      data_sha256: of the data that it was measured on, if these are not the task's own: a generated sample, or a copy
    """
    return {"cosformer": Expected(cosformer, 2.0, "measured here first, one seed", data_sha256)}


# ---- lra


def lra(
    task: str,
    *,
    max_len: int,
    model: Model,
    train: Train,
    forms: Mapping[str, Form],
    softmax: float,
    linear: float,
    cosformer: float,
) -> Protocol:
    """Return the protocol of the original suite. Scores are in per cent, as published."""
    return Protocol(
        task=task,
        name="lra",
        version=2,
        about="the configuration files of the original Long-Range Arena",
        variant="full",
        max_len=max_len,
        model=model,
        train=train,
        forms=forms,
        expected={
            "softmax": Expected(softmax, 2.0, LRA_PAPER),
            "linear": Expected(linear, 2.0, LRA_PAPER),
            "cosformer": Expected(cosformer, 2.0, COSFORMER_PAPER),
        },
    )


def lra_model(
    *,
    layers: int,
    d_model: int,
    heads: int,
    qkv_dim: int,
    mlp_dim: int,
    dropout: float,
    attention_dropout: float,
    positions: Literal["learned", "sinusoidal"],
    pooling: Literal["mean", "cls", "first"],
    head: tuple[int, ...],
    pair: Literal["concat"] | None = None,
) -> Model:
    """Return a model of the original suite: its sizes, and what it has on every task."""
    return Model(
        layers=layers,
        d_model=d_model,
        heads=heads,
        qkv_dim=qkv_dim,
        mlp_dim=mlp_dim,
        dropout=dropout,
        attention_dropout=attention_dropout,
        positions=positions,
        pooling=pooling,
        head=head,
        pair=pair,
        bias=False,
        embed_std=1.0,
        position_std=0.02,
        init="lra",
        norm_eps=1e-6,
        gelu="tanh",
        dtype="float32",
    )


def lra_train(
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup: int,
    schedule: Literal["rsqrt", "cosine"],
    weight_decay: float,
    eval_every: int,
) -> Train:
    """Return a schedule of the original suite, and the optimiser that it has on every task."""
    return Train(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        schedule=schedule,
        weight_decay=weight_decay,
        b1=0.9,
        b2=0.98,
        eps=1e-9,
        clip_value=None,
        eval_every=eval_every,
        selection="last",
        select_after=0.0,
        matmul_precision="highest",
    )


# What the code of the original suite computes under the name of each mixer: docs/mixers.md.
LRA_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "bigbird": {"random_span": 1024, "drop_weights": False},
    "linear": {},
    "linformer": {"rank": 16, "sharing": "key-value", "init": "xavier"},
    "local": {"layout": "lra_strided"},
    "longformer": {"num_global": 0, "window_counts_query": True},
    "performer": {"kernel": "relu", "features": 0},
    "reformer": {"official": True},
    "sinkhorn": {"window": 50, "form": "lra"},
    "sparse": {"stride": 50, "columns": 10, "causal": True, "global_first": True},
    "synthesizer": {"dot_product": "sum"},
}


def lra_forms(
    folder: str,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    model: Mapping[str, Mapping[str, Any]] | None = None,
    train: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Form]:
    """Return the forms in which the original suite ran its mixers on one task.

    Args:
      folder: of the configuration files, in lra_benchmarks/
      options: of mixers that have others than `LRA_OPTIONS` on this task
      model, train: fields that a mixer's configuration file sets otherwise than `transformer_base.py`
    """
    return {
        mixer: Form(
            options=(options or {}).get(mixer, usual),
            model=(model or {}).get(mixer, {}),
            train=(train or {}).get(mixer, {}),
            source=folder,
        )
        for mixer, usual in LRA_OPTIONS.items()
    }


# ---- small


# Skyformer's `extra_attn_config` (src/config.py) on the tasks of 1,024 tokens; docs/mixers.md says why lengths matter.
SMALL_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "bigbird": {"drop_weights": False},
    "linformer": {"rank": 128},
    "nystromformer": {"landmarks": 128, "taps": None, "segments": "padded", "drop_weights": False},
    "performer": {"features": 128, "eps": 1e-4},
    "reformer": {"rounds": 2, "across_buckets": True, "duplicates": True},
}


def small(
    task: str,
    *,
    max_len: int,
    batch_size: int,
    learning_rate: float,
    warmup: int,
    eval_every: int,
    softmax: float,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    pair: Pair = None,
) -> Protocol:
    """Return the protocol of Skyformer: two layers of width 64, 50,000 steps.

    Args:
      options: of mixers that have more than `SMALL_OPTIONS` on this task
    """
    return Protocol(
        task=task,
        name="small",
        version=2,
        about="two layers of width 64, 50,000 steps (Skyformer's model and schedule)",
        variant="full",
        max_len=max_len,
        model=Model(
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
            pair=pair,
            bias=True,
            embed_std=0.02,
            position_std=0.02,
            init="torch",
            norm_eps=1e-5,
            gelu="erf",
            dtype="float32",
        ),
        train=Train(
            steps=50_000,
            batch_size=batch_size,
            learning_rate=learning_rate,
            warmup=warmup,
            schedule="onecycle",
            weight_decay=0.0,
            b1=0.95,
            b2=0.999,
            eps=1e-6,
            clip_value=1.0,
            eval_every=eval_every,
            selection="best",
            select_after=0.2,
            matmul_precision="highest",
        ),
        forms={
            mixer: Form({**usual, **(options or {}).get(mixer, {})}, source="src/config.py")
            for mixer, usual in SMALL_OPTIONS.items()
        },
        expected={"softmax": Expected(softmax, 2.0, SKYFORMER_PAPER)},
    )


# ---- laptop and quick


def own_model(*, dropout: float, embed_std: float, pair: Pair) -> Model:
    """Return the model of `laptop` and `quick`: the sizes of `small`, flax's epsilon, xavier-uniform weights.

    Args:
      embed_std: standard deviation of token embeddings and of learned positions at initialization
    """
    return Model(
        layers=2,
        d_model=64,
        heads=2,
        qkv_dim=64,
        mlp_dim=128,
        dropout=dropout,
        attention_dropout=dropout,
        positions="learned",
        pooling="mean",
        head=(128,),
        pair=pair,
        bias=True,
        embed_std=embed_std,
        position_std=embed_std,
        init="xavier",
        norm_eps=1e-6,
        gelu="erf",
        dtype="float32",
    )


def own_train(*, steps: int, batch_size: int, learning_rate: float, warmup: int, eval_every: int) -> Train:
    """Return a schedule of `laptop` and `quick`, with the optimiser of `small`."""
    return Train(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        schedule="onecycle",
        weight_decay=0.0,
        b1=0.95,
        b2=0.999,
        eps=1e-6,
        clip_value=1.0,
        eval_every=eval_every,
        selection="best",
        select_after=0.0,
        matmul_precision="highest",
    )


def laptop(
    task: str,
    variant: str = "full",
    *,
    version: int = 1,
    max_len: int,
    steps: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    warmup: int,
    eval_every: int,
    dropout: float = 0.1,
    embed_std: float = 0.02,
    minutes: str = "",
    expected: Mapping[str, Expected] | None = None,
    pair: Pair = None,
) -> Protocol:
    """Return the protocol for two CPU cores: fewer steps at ten times the learning rate of `small`, or more."""
    return Protocol(
        task=task,
        name="laptop",
        version=version,
        about="the sizes of `small`, fewer steps at a higher learning rate; about an hour on two CPU cores",
        variant=variant,
        max_len=max_len,
        model=own_model(dropout=dropout, embed_std=embed_std, pair=pair),
        train=own_train(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup=warmup, eval_every=eval_every
        ),
        expected=expected or {},
        minutes=minutes,
    )


def quick(
    task: str,
    variant: str,
    *,
    max_len: int = 256,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    embed_std: float = 0.02,
    source: str | None = None,
    minutes: str,
    expected: Mapping[str, Expected],
    pair: Pair = None,
) -> Protocol:
    """Return the smoke test. It has no dropout, because nothing overfits in so few steps.

    Args:
      source: "sample" where the task's first source are official files, so that results compare on every machine
    """
    return Protocol(
        task=task,
        name="quick",
        version=2,
        about="generated inputs of at most 256 bytes, a minute a run: shows that everything works",
        variant=variant,
        max_len=max_len,
        model=own_model(dropout=0.0, embed_std=embed_std, pair=pair),
        train=own_train(steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup=100, eval_every=100),
        source=source,
        expected=expected,
        minutes=minutes,
    )
