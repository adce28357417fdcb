"""What a user's shell says of JAX's numerics changes no run, and keeps none from being resumed or evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lra.errors import RunError
from lra.paths import ROOT
from lra.runtime.numerics import PINNED, pin

pytestmark = pytest.mark.slow

OTHER = {
    "JAX_ALLOW_F16_REDUCTIONS": "0",
    "JAX_DEBUG_INFS": "1",
    "JAX_DEBUG_KEY_REUSE": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEFAULT_DTYPE_BITS": "32",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_DISABLE_JIT": "1",
    "JAX_ENABLE_CUSTOM_PRNG": "1",
    "JAX_ENABLE_X64": "1",
    "JAX_EXPLICIT_X64_DTYPES": "error",
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": "1",
    "JAX_LEGACY_PRNG_KEY": "error",
    "JAX_NO_EXECUTION": "1",
    "JAX_NO_TRACING": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
    "JAX_THREEFRY_PARTITIONABLE": "0",
}
# A mixer that makes an array when it is imported, and multiplies matrices outside of the model's own precision.
MIXER = """
import jax.numpy as jnp
from models.core import QKVAttention

HALF = jnp.asarray([0.5])

class Mine(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        return HALF * v + jnp.einsum("blhk,blhj->blhj", q, v) / 9
"""
WORDS = [
    *("train", "--task", "listops", "--protocol", "quick", "--source", "sample", "--mixer", "mine.py"),
    *("--limit", "50", "--max-len", "64", "--train.steps", "6", "--train.eval-every", "3", "--train.batch-size", "8"),
    *("--model.layers", "1", "--model.d-model", "16", "--model.qkv-dim", "16", "--model.mlp-dim", "16"),
    *("--model.dropout", "0.1", "--model.attention-dropout", "0.1"),
]
COMPARED = ("id", "curve", "validation", "selection", "test", "config_sha256", "code", "parameters", "forward_flops")


def command(cwd: Path, runs: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    prepared = str(ROOT / ".cache" / "prepared-for-tests")
    environment = {**os.environ, "LRA_RUNS": str(cwd / runs), "LRA_PREPARED": prepared, **variables}
    words = (sys.executable, str(ROOT / "run_lra.py"), *words)
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


def test_every_setting_is_tried() -> None:
    assert {name.upper() for name in PINNED} == OTHER.keys()


def test_a_run_is_bit_equal_whatever_the_shell_says(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MIXER)
    records = []
    for runs, variables in (("plain", {}), ("odd", OTHER)):
        done = command(tmp_path, runs, *WORDS, **variables)
        assert done.returncode == 0, done.stderr
        assert ("jax_enable_x64=False" in done.stderr) == bool(variables)
        (path,) = (tmp_path / runs).glob("*/records/*.json")
        records.append(json.loads(path.read_text()))
    assert [records[0][k] for k in COMPARED] == [records[1][k] for k in COMPARED]
    assert records[0]["environment"]["variables"] == records[1]["environment"]["variables"]
    done = command(tmp_path, "plain", "evaluate", records[0]["id"], **OTHER)
    assert done.returncode == 0, done.stderr
    assert ": the same" in done.stdout


def test_settings_of_this_process_are_set_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        pin()
        message = "runs are computed with jax_enable_x64=False, jax_numpy_dtype_promotion=standard, "
        assert capsys.readouterr().err == f"{message}whatever the environment says\n"
        assert not jax.config.jax_enable_x64
        pin()
        assert capsys.readouterr().err == ""
    finally:
        jax.config.update("jax_enable_x64", False)
        jax.config.update("jax_numpy_dtype_promotion", "standard")


def test_a_context_that_overrides_one_is_refused() -> None:
    with jax.default_matmul_precision("bfloat16"), pytest.raises(RunError, match="sets jax_default_matmul_precision"):
        pin()
    pin()
