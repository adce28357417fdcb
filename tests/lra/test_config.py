"""Protocols, overrides and the hash that names a run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from lra import config as cfg
from lra.api import configure
from lra.config import RunConfig, hashed_fields, id_hashes, protocol
from lra.errors import ConfigError
from lra.protocols import with_recipe
from lra.training.step_functions import encoder_config
from models.mixers import available
from tasks import load_task

EVERY = [(task, name) for task in cfg.TASKS for name in cfg.protocols(task)]


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_every_protocol_names_what_exists(task, name):
    base, card = protocol(task, name), load_task(task).CARD
    assert (base.task, base.name) == (task, name)
    assert base.variant in card.variants
    assert (base.model.pair is not None) == card.pairs
    config = configure(task, "cosformer", protocol=name)
    assert not config.modified
    assert encoder_config(config, card).max_len == base.max_len
    if name == "quick":
        assert base.max_len <= 256
        assert card.variants[base.variant].sizes["test"] <= 1_000


@pytest.mark.parametrize(
    ("task", "name", "millions"),
    [("listops", "lra", 8.95), ("retrieval", "lra", 1.09), ("image", "lra", 0.248), ("listops", "small", 0.21)],
)
def test_parameters_are_those_of_the_published_models(task, name, millions):
    """Counts of the original configurations, and of Skyformer's; softmax."""
    from lra.training.step_functions import StepFunctions

    program = StepFunctions(configure(task, "softmax", protocol=name), load_task(task).CARD)
    assert program.parameters / 1e6 == pytest.approx(millions, rel=0.025)  # there 2,048 positions and 32 ids


def test_execution_flags_keep_the_name_and_anything_else_modifies_it():
    plain = configure("listops", "cosformer", protocol="small")
    same = configure("listops", "cosformer", protocol="small", overrides={"train.micro_batch": 4, "train.remat": True})
    assert (same.modified, same.sha256, same.run_id("0", "1")) == (False, plain.sha256, plain.run_id("0", "1"))
    other = configure("listops", "cosformer", protocol="small", overrides={"train.steps": 500})
    assert (other.protocol, other.protocol_version, other.modified) == ("small", 2, True)
    assert other.sha256 != plain.sha256
    assert configure("listops", "cosformer", protocol="small", limit=10).modified
    assert configure("listops", "cosformer", protocol="small", overrides={"train.steps": 50_000}) == plain
    assert configure("listops", "cosformer", protocol="small", seed=1).sha256 != plain.sha256
    assert configure("listops", "cosformer", protocol="small", options=["eps=0.1"]).mixer_label == "cosformer(eps=0.1)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "listop"}, "listops, text, retrieval, image, pathfinder"),
        ({"protocol": "tiny"}, "quick, laptop, small, lra"),
        ({"mixer": "cosforme"}, f"a mixer is one of {', '.join(available())}, or"),
        ({"mixer": "nowhere.py:Mine"}, "no file"),
        ({"options": ["window=3"]}, "its options: eps=1e-06"),
        ({"options": ["eps=much"]}, "eps=much: not a float"),
        ({"overrides": {"train.step": 5}}, "Train has steps, batch_size"),
        ({"overrides": {"optimizer": 5}}, "max_len, variant, model.* and train.* can be"),
        ({"overrides": {"train.micro_batch": 5}}, "must divide train.batch_size (32)"),
        ({"overrides": {"model.heads": 3}}, "must be a multiple of model.heads (3)"),
        ({"overrides": {"train.steps": 0}}, "train.steps is 0: input should be greater than or equal to 1"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(change, message):
    given = {"task": "listops", "mixer": "cosformer", "protocol": "small", **change}
    with pytest.raises(ConfigError) as error:
        configure(given.pop("task"), given.pop("mixer"), **given)
    assert message in str(error.value)


def test_a_configuration_survives_its_file():
    config = configure("retrieval", "cosformer", protocol="lra", seed=3, options={"eps": 0.5})
    again = RunConfig.from_text(config.as_text())
    assert again == config
    assert again.sha256 == config.sha256
    fields = json.loads(config.as_text())
    fields["model"]["colour"] = "blue"
    with pytest.raises(ConfigError, match="colour"):
        RunConfig.from_text(json.dumps(fields))


def test_one_experiment_has_one_id():
    """However it is said: a default that is named, a whole number for a float, a source that is found anyway."""
    plain = configure("text", "local", protocol="quick", overrides={"train.learning_rate": 1.0})
    result = [
        configure("text", "local", protocol="quick", options=options, source=source, overrides=overrides)
        for options in ((), ["window=50"], {"window": 50})
        for source in (None, "official", "sample")
        for overrides in ({"train.learning_rate": 1}, {"train.learning_rate": 1.0, "model.layers": 2})
    ]
    assert {c.run_id("0", "1") for c in result} == {plain.run_id("0", "1")}
    assert {c.sha256 for c in result} == {plain.sha256}
    assert {c.source for c in result} == {"official", "sample"}  # `quick` has its own
    assert [configure("text", "cosformer", protocol="quick", options={"eps": eps}).sha256 for eps in (1, 1.0)] == [
        configure("text", "cosformer", protocol="quick", options=["eps=1"]).sha256
    ] * 2
    other = configure("text", "local", protocol="quick", options={"window": 8})
    assert (other.mixer_options, other.mixer_label) == ({"window": 8}, "local(window=8)")


def test_an_earlier_configuration_is_read():
    """With the source among what counts, and a default option that is named."""
    config = configure("text", "local", protocol="small")
    fields = json.loads(config.as_text()) | {"source": "official", "mixer_options": {"window": 50}}
    again = RunConfig.from_text(json.dumps(fields))
    assert (again.source, again.mixer_options) == ("official", {"window": 50})
    del fields["source"], fields["mixer_options"]
    with pytest.raises(ConfigError, match="mixer_options"):
        RunConfig.from_text(json.dumps(fields))
    assert RunConfig.from_text(json.dumps(fields | {"mixer_options": {}})) == config


def test_an_id_ends_in_its_hashes():
    config = configure("listops", "local", protocol="quick", options={"window": 8}, seed=3)
    old, new = config.run_id("d" * 64, None), config.run_id("d" * 64, "c" * 64)
    assert new == f"listops-short-quick-local_window_8-s3-{config.sha256[:8]}-dddddd-cccccc"
    assert old == new.removesuffix("-cccccc")
    assert id_hashes(new) == [config.sha256[:8], "dddddd", "cccccc"]
    assert id_hashes(old) == [config.sha256[:8], "dddddd"]
    for odd in ("", "a-b", "dddddd", f"{old}-x", f"{new}\n", f"{new}-dddddd"):
        assert id_hashes(odd) == []


def test_an_id_is_of_plain_characters_that_records_allow():
    config = dataclasses.replace(configure("listops", "local", protocol="quick"), mixer_label="größe.py:Ö(a=1)")
    assert config.run_name() == "listops-short-quick-gr__e_py___a_1-s0"


def test_the_hash_is_of_meaning_alone():
    message = hashed_fields(configure("listops", "cosformer", protocol="small"))
    assert "micro_batch" not in message["train"]
    assert "source" not in message
    assert message["model"]["head"] == [128]
    assert not any(isinstance(v, float) and math.isnan(v) for v in message["train"].values())


def test_a_protocol_with_a_recipe_is_another_protocol() -> None:
    plain, shuffled = cfg.protocol("listops", "small"), cfg.protocol("listops", "small+shuffle")
    assert (shuffled.name, shuffled.version, shuffled.expected) == ("small+shuffle", plain.version, {})
    assert (shuffled.train, shuffled.model, shuffled.forms) == (plain.train, plain.model, plain.forms)
    newer = with_recipe(plain, dataclasses.replace(shuffled.recipe, version=3))
    assert newer.version == plain.version + 2
    assert [base.task for base in cfg.protocols_named("quick+denoise")] == ["text", "retrieval"]
    assert {base.task for base in cfg.protocols_named("lra+spt")} == {*cfg.TASKS}
    with pytest.raises(ConfigError, match=r"no recipe 'shufle' on listops \(did you mean 'shuffle'\?\); .*small\+spt"):
        cfg.protocol("listops", "small+shufle")
    with pytest.raises(ConfigError, match=r"^no recipe 'shuffle' on image; .* small\+augment, small\+spt$"):
        cfg.protocol("image", "small+shuffle")


def test_a_recipe_is_hashed_only_where_there_is_one() -> None:
    assert "recipe" not in cfg.hashed_fields(cfg.protocol("listops", "small"))
    recipe = cfg.protocol("listops", "small+spt").recipe
    assert cfg.hashed_fields(recipe) == {"masked": 0.1, "pretraining": 0.4, "seed": 0, "name": "spt", "version": 1}
