"""The type of a protocol: everything but the mixer, for one task. Imports neither jax nor flax.

The protocols are in `configs/`, one file for each task. docs/protocols.md lists every number with its source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

LARGEST = 1e31  # of a setting: float32 must not overflow

Positive = Annotated[int, Ge(1), Lt(2**31)]
Rate = Annotated[float, Ge(0), Lt(1)]
NotNegative = Annotated[float, Ge(0), Lt(LARGEST)]
AboveZero = Annotated[float, Gt(0), Lt(LARGEST)]

HASHED_IF_SET = {"hashed_if_set": True}  # of a field that is not part of the hash where it is None

CURVE_POINTS = 200  # maximum number of points of a record's learning curve


def unhashed_field(default: Any) -> Any:
    """Declare a field that says how a run is executed, and is not part of the protocol's hash."""
    return dataclasses.field(default=default, metadata={"unhashed": True})


@dataclasses.dataclass(frozen=True)
class Model:
    """The encoder that surrounds the mixer (see `models.encoder`)."""

    layers: Positive
    d_model: Positive
    heads: Positive
    qkv_dim: Positive
    mlp_dim: Positive
    dropout: Rate
    attention_dropout: Rate
    positions: Literal["learned", "sinusoidal"]
    pooling: Literal["mean", "cls", "first"]
    head: tuple[Positive, ...]  # hidden widths of the classifier's MLP
    pair: Literal["concat", "nli"] | None = None
    bias: bool = False  # biases of the q, k, v and output projections
    embed_std: NotNegative = 1.0  # standard deviation of token embeddings at initialization
    position_std: NotNegative = 0.02  # standard deviation of learned positions at initialization
    init: Literal["xavier", "lra", "torch"] = "xavier"  # initialization of linear layers, see models/encoder.py
    norm_eps: AboveZero = 1e-6  # epsilon of LayerNorm
    gelu: Literal["erf", "tanh"] = "erf"  # exact GELU, or its tanh approximation
    dtype: Literal["float32", "bfloat16"] = "float32"  # type of the computation; parameters are float32


@dataclasses.dataclass(frozen=True)
class Train:
    """Optimizer, schedule and batches."""

    steps: Positive
    batch_size: Positive
    learning_rate: AboveZero  # peak rate; for `rsqrt` a factor: the peak is learning_rate / sqrt(warmup)
    warmup: Annotated[int, Ge(0), Lt(2**31)]  # steps; at least 1 for `rsqrt`
    schedule: Literal["onecycle", "rsqrt", "cosine"]
    weight_decay: NotNegative
    b1: Rate  # for `onecycle` the highest value of the momentum cycle, 0.1 above the lowest
    b2: Rate
    eps: AboveZero
    clip_value: AboveZero | None  # gradient entries are clipped to this absolute value
    eval_every: Positive  # steps between validations
    selection: Literal["best", "last"] = "best"  # tested checkpoint: the best on validation, or the last
    select_after: Rate = 0.0  # share of the steps before which no checkpoint is selected
    matmul_precision: Literal["default", "high", "highest"] = "highest"
    # examples per micro-batch; None: chosen for the device
    micro_batch: Annotated[int, Ge(1)] | None = unhashed_field(None)
    remat: bool = unhashed_field(False)  # recompute activations in the backward pass
    length_shards: Annotated[int, Ge(1)] = unhashed_field(1)  # devices that share the positions of each example
    # steps per dispatch, all padded to the longest bucket; None: 1 on a CPU and for inputs of different lengths
    dispatch_steps: Annotated[int, Ge(1)] | None = unhashed_field(None)


@dataclasses.dataclass(frozen=True)
class Shuffle:
    """The operands of every operator are shuffled for each example at each step, which does not change the value.

    first_operator: bytes from this one to `end` - 1 are operators, smaller ones are digits
    end: byte of the closing bracket
    max_depth: of nodes; the root has depth 1
    """

    first_operator: Positive
    end: Positive
    max_depth: Positive
    name: Literal["shuffle"] = "shuffle"
    version: Positive = 1
    about: ClassVar[str] = "operands are shuffled for each example at each step"


@dataclasses.dataclass(frozen=True)
class Denoise:
    """Inputs are corrupted, and besides the class the true symbol at every real position is predicted.

    corrupted: share of the real positions
    masked: share of these that become a mask symbol; the others become a random symbol
    weight: of the mean cross-entropy of the true symbols, beside that of the class
    """

    corrupted: Rate = 0.3
    masked: Rate = 2 / 3
    weight: AboveZero = 1.0
    name: Literal["denoise"] = "denoise"
    version: Positive = 1
    about: ClassVar[str] = "inputs are corrupted, and the true symbol at every position is predicted as well"


@dataclasses.dataclass(frozen=True)
class Augment:
    """Images are flipped and shifted.

    horizontal, vertical: whether they are flipped in this direction with probability 1/2
    shift: largest shift in each direction, as a share of the side; the pixels that become free are black
    """

    horizontal: bool
    vertical: bool
    shift: Rate = 0.0
    name: Literal["augment"] = "augment"
    version: Positive = 1
    about: ClassVar[str] = "images are flipped, on some tasks also shifted"


@dataclasses.dataclass(frozen=True)
class SelfPretraining:
    """The first steps predict masked symbols of the training inputs, the others fine-tune everything with a new head.

    masked: share of the real positions that are masked and predicted
    pretraining: share of the protocol's steps that pretrain
    seed: of pretraining, whatever the seed of the run (`lra.training.pretraining`)
    """

    masked: Rate
    pretraining: Rate = 0.4
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    name: Literal["spt"] = "spt"
    version: Positive = 1
    about: ClassVar[str] = "the first 40 % of the steps predict masked symbols of the training inputs, without labels"

    def first_steps(self, steps: int) -> int:
        """Return how many of a run's steps pretrain; at least one, and not all."""
        return max(1, min(steps - 1, round(self.pretraining * steps)))


Recipe = Shuffle | Denoise | Augment | SelfPretraining


@dataclasses.dataclass(frozen=True)
class Expected:
    """An expected score in per cent, and its source.

    data_sha256: hash of the data it was measured on; None: the official or generated data of the full task
    """

    score: float
    tolerance: float
    source: str
    data_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Form:
    """How a protocol's source configured one mixer, if that differs from the mixer's defaults or the protocol.

    options: of the mixer
    model, train: fields of `Model` and `Train` that replace the protocol's
    source: file of the source, with remarks
    """

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that is not the mixer, for one task.

    recipe: what training does besides; None: nothing (`with_recipe`)
    forms: how the protocol's source configured mixers, by name (`protocol_for`)
    expected: expected scores, by the label of a mixer with its options
    minutes: measured duration of a run, with the hardware
    """

    task: str
    name: str
    version: int
    about: str
    variant: str
    max_len: int
    model: Model
    train: Train
    source: str | None = None  # of the data; None: the first available source of the task
    recipe: Recipe | None = dataclasses.field(default=None, metadata=HASHED_IF_SET)
    forms: Mapping[str, Form] = dataclasses.field(default_factory=dict)
    expected: Mapping[str, Expected] = dataclasses.field(default_factory=dict)
    minutes: str = ""


def protocol_for(base: Protocol, mixer: str, options: Mapping[str, Any]) -> Protocol:
    """Return the protocol for a mixer with these options.

    The sizes of a form apply only to the options of that form.

    Args:
      mixer: name of a mixer in `models/mixers`; other mixers have no form
      options: those that differ from the mixer's defaults
    """
    form = base.forms.get(mixer)
    if form is None or dict(form.options) != dict(options):
        return base
    model, train = dataclasses.replace(base.model, **form.model), dataclasses.replace(base.train, **form.train)
    return dataclasses.replace(base, model=model, train=train)


def with_recipe(base: Protocol, recipe: Recipe) -> Protocol:
    """Return the protocol `base+recipe`, whose version rises with that of either. No score is expected of it."""
    return dataclasses.replace(
        base,
        name=f"{base.name}+{recipe.name}",
        version=base.version + recipe.version - 1,
        about=f"{base.about}; {recipe.about}",
        recipe=recipe,
        expected={},
        minutes="",
    )


TUNING_FACTORS = (0.3, 1.0, 3.0)  # of the protocol's learning rate


def tuning_grid(base: Protocol) -> list[float]:
    """Return the learning rates to try, the protocol's own among them."""
    return [float(f"{factor * base.train.learning_rate:.3g}") for factor in TUNING_FACTORS]
