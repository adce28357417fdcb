"""What a protocol is: everything but the mixer, for one task. Imports neither jax nor flax.

The protocols themselves are in `configs/`, one file for each task. docs/protocols.md lists every number with its
source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

CURVE_POINTS = 200  # of a record's learning curve, at most


def execution(default: Any) -> Any:
    """A field that says how a run is executed; without part in the protocol or the hash."""
    return dataclasses.field(default=default, metadata={"execution": True})


@dataclasses.dataclass(frozen=True)
class Model:
    """The encoder that surrounds the mixer (see `models.encoder`)."""

    layers: int
    d_model: int
    heads: int
    qkv_dim: int
    mlp_dim: int
    dropout: float
    attention_dropout: float
    positions: Literal["learned", "sinusoidal"]
    pooling: Literal["mean", "cls", "first"]
    head: tuple[int, ...]  # hidden widths of the classifier's MLP
    pair: Literal["concat", "nli"] | None = None
    bias: bool = False  # of the q, k, v and output projections
    embed_std: float = 1.0  # standard deviation of token embeddings at the start
    position_std: float = 0.02  # the same of learned positions
    init: Literal["xavier", "lra", "torch"] = "xavier"  # of linear layers, see models/encoder.py
    norm_eps: float = 1e-6  # of LayerNorm
    gelu: Literal["erf", "tanh"] = "erf"  # the exact GELU, or its approximation by tanh
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation; parameters are float32


@dataclasses.dataclass(frozen=True)
class Train:
    """Optimiser, schedule and batches."""

    steps: int
    batch_size: int
    learning_rate: float  # the peak; for `rsqrt` the factor: the peak is learning_rate / sqrt(warmup)
    warmup: int
    schedule: Literal["onecycle", "rsqrt", "cosine"]
    weight_decay: float
    b1: float  # for `onecycle` the highest value of its momentum cycle, 0.1 above the lowest
    b2: float
    eps: float
    clip_value: float | None  # largest absolute value of a gradient's entry
    eval_every: int  # steps between validations
    selection: Literal["best", "last"] = "best"  # which checkpoint is tested: the best on validation, or the last
    select_after: float = 0.0  # share of the steps up to which no checkpoint is selected
    matmul_precision: Literal["default", "high", "highest"] = "highest"
    micro_batch: int | None = execution(None)  # examples a micro-batch; None: chosen for the device
    remat: bool = execution(False)  # recompute activations in the backward pass
    length_shards: int = execution(1)  # devices that share the positions of each example
    # Steps in one dispatch, all padded to the longest bucket; None: 1 on a CPU and where lengths differ
    dispatch_steps: int | None = execution(None)


@dataclasses.dataclass(frozen=True)
class Expected:
    """A score to be reproduced, in per cent, and its source.

    data_sha256: hash of the data that it was reached on; None: the official or generated data of the full task
    """

    score: float
    tolerance: float
    source: str
    data_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Form:
    """How a protocol's source ran one mixer, where that differs from the mixer's defaults and the protocol's sizes.

    options: of the mixer
    model, train: fields of `Model` and `Train` that replace the protocol's
    source: file of the source that says so, and remarks
    """

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that is not the mixer, for one task.

    forms: by the name of a mixer, how the protocol's source ran it (`protocol_for`)
    expected: scores to be reproduced, by the label of a mixer with its options
    minutes: how long a run takes, measured, with the hardware
    """

    task: str
    name: str
    version: int
    about: str
    variant: str
    max_len: int
    model: Model
    train: Train
    allow_sample: bool = False  # without official data, use the generated sample
    forms: Mapping[str, Form] = dataclasses.field(default_factory=dict)
    expected: Mapping[str, Expected] = dataclasses.field(default_factory=dict)
    minutes: str = ""


def protocol_for(base: Protocol, mixer: str, options: Mapping[str, Any]) -> Protocol:
    """Return the protocol as it holds for a mixer with these options.

    The sizes of a form apply where the options are those of the form, and to no other options of the same mixer.

    Args:
      mixer: name of a mixer of the project; a file of the user has no form
      options: those that differ from the mixer's defaults
    """
    form = base.forms.get(mixer)
    if form is None or dict(form.options) != dict(options):
        return base
    model, train = dataclasses.replace(base.model, **form.model), dataclasses.replace(base.train, **form.train)
    return dataclasses.replace(base, model=model, train=train)


TUNING_FACTORS = (0.3, 1.0, 3.0)  # of the protocol's learning rate


def tuning_grid(base: Protocol) -> list[float]:
    """Return the learning rates to try, the protocol's own among them."""
    return [float(f"{factor * base.train.learning_rate:.3g}") for factor in TUNING_FACTORS]
