"""What a training step costs, apart from any machine's speed: counted operations, and memory that the compiler needs.

The figures were written by `python benchmarks/step_costs.py`. Who means to change a cost runs it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import jax
import pytest

from benchmarks.step_costs import LENGTHS, RECORDED, compiler, operations, temporary_bytes
from models import mixers

pytestmark = pytest.mark.slow

SAID = json.loads(RECORDED.read_text())
LINEAR = [name for name in mixers.available() if (mixers.resolve(name).complexity or ("", ""))[1] == "L"]


@pytest.fixture
def optimised() -> Iterator[None]:
    """As users compile; the other tests do not."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def test_every_mixer_has_figures() -> None:
    assert tuple(SAID["costs"]) == mixers.available(), f"run {SAID['made_by']}"
    assert {"cosformer", "linear", "performer", "local"} <= set(LINEAR)
    assert "polynomial" not in LINEAR


@pytest.mark.parametrize("name", mixers.available())
def test_operations(name: str) -> None:
    assert operations(name) == pytest.approx(SAID["costs"][name]["flops"], rel=0.02)


@pytest.mark.parametrize("name", mixers.available())
@pytest.mark.usefixtures("optimised")
def test_temporary_memory(name: str) -> None:
    if compiler() != SAID["compiler"]:
        pytest.skip(f"temporary memory is this compiler's business: recorded with {SAID['compiler']}")
    length = LENGTHS[0]
    assert temporary_bytes(name, length) == pytest.approx(SAID["costs"][name]["temporary_bytes"][str(length)], rel=0.15)


@pytest.mark.parametrize("name", LINEAR)
def test_memory_of_a_linear_mixer_grows_with_the_length(name: str) -> None:
    """On the recorded figures: the shorter one is held to the code above, and both are always made together.

    Twice, and a little: BigBird's row of blocks is not yet full at the shorter length. Quadratic memory is four times.
    """
    short, long = (SAID["costs"][name]["temporary_bytes"][str(length)] for length in LENGTHS)
    assert long / short < 2.5
