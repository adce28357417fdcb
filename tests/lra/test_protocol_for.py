"""A mixer named without options runs as the protocol's source ran it, else with the protocol's sizes."""

from __future__ import annotations

import pytest

from lra import config as cfg
from lra.api import configure
from lra.training.step_functions import StepFunctions
from models import mixers
from tasks import load_task

FORMS = [
    (task, name, mixer) for task in cfg.TASKS for name, base in cfg.protocols(task).items() for mixer in base.forms
]


def test_linear_on_pathfinder_has_its_published_sizes() -> None:
    """linear_transformer_base.py of Pathfinder32: 1 layer, 2 heads, 128/64/128, dropout 0.2."""
    model = configure("pathfinder", "linear", protocol="lra").model
    sizes = (model.layers, model.heads, model.d_model, model.qkv_dim, model.mlp_dim, model.head, model.dropout)
    assert sizes == (1, 2, 128, 64, 128, (128,), 0.2)
    assert configure("pathfinder", "softmax", protocol="lra").model == cfg.protocol("pathfinder", "lra").model


def test_performer_without_options_is_the_published_form() -> None:
    config = configure("pathfinder", "performer", protocol="lra")
    assert config.mixer_label == "performer(kernel=relu, features=0)"
    assert (config.model.layers, config.model.heads, config.model.d_model, config.modified) == (1, 8, 128, False)
    assert configure("listops", "performer", protocol="lra").mixer_label == "performer(features=2, redraw=True)"
    assert configure("listops", "performer", protocol="quick").mixer_label == "performer"


def test_other_options_have_the_sizes_of_the_protocol() -> None:
    other = configure("pathfinder", "performer", protocol="lra", options=["features=64"])
    assert other.model == cfg.protocol("pathfinder", "lra").model
    same = configure("pathfinder", "performer", protocol="lra", options=["kernel=relu", "features=0"])
    assert same == configure("pathfinder", "performer", protocol="lra")


def test_the_schedule_of_a_form_holds() -> None:
    assert configure("image", "sinkhorn", protocol="lra").train.weight_decay == 0.7
    assert configure("image", "softmax", protocol="lra").train.weight_decay == 0.0


def test_a_form_can_be_overridden_and_is_modified_then() -> None:
    config = configure("pathfinder", "linear", protocol="lra", overrides={"model.layers": 3})
    assert (config.model.layers, config.model.d_model, config.modified) == (3, 128, True)


@pytest.mark.parametrize(("task", "name", "mixer"), FORMS)
def test_every_form_is_a_model(task: str, name: str, mixer: str) -> None:
    """Options exist, differ from the defaults, and the model with its sizes has parameters."""
    form = cfg.protocol(task, name).forms[mixer]
    valid = mixers.options(mixers.resolve(mixer).cls)
    assert all(valid[option].default != value for option, value in form.options.items())
    config = configure(task, mixer, protocol=name)
    assert not config.modified
    assert config.mixer_options == dict(form.options)
    assert StepFunctions(config, load_task(task).CARD).parameters > 10_000
