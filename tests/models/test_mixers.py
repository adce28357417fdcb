"""Finding mixers by name, and their options. The mixer contract is tested in tests/lra/contract/test_contract.py."""

from __future__ import annotations

import hashlib
import importlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from models.core import Block, Dims, QKVAttention
from models.mixers import available, build, check_options, label, options, parse_options, resolve, version_of

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=40, mlp_dim=24, dropout=0.3)
every_mixer = pytest.mark.parametrize("name", available())


def inputs() -> tuple[jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(3), (2, 7, DIMS.d_model))
    return x, jnp.ones(x.shape[:2], bool)


@every_mixer
def test_every_mixer_has_a_complexity_a_label_and_options(name: str) -> None:
    mixer = resolve(name)
    assert mixer.name == name
    assert mixer.sha256 is None
    assert mixer.complexity is not None
    assert len(mixer.complexity) == 2
    assert label(name, {}) == (f"{name} [block]" if issubclass(mixer.cls, Block) else name)
    options(mixer.cls)


@every_mixer
def test_every_version_is_an_integer_readable_without_import(name: str) -> None:
    module = importlib.import_module(f"models.mixers.{name}")
    version = version_of(name)
    assert type(version) is int
    assert version >= 1
    assert version == resolve(name).version == getattr(module, "VERSION", 1)


def test_versions_are_read_without_importing_the_mixer() -> None:
    assert version_of("cosformer") == 1
    assert version_of("s4d") == resolve("models.mixers.s4d:S4D").version == 2
    with pytest.raises(ValueError, match=r"unknown mixer '\.\./core'; the mixers are bigbird, "):
        version_of("../core")
    code = "import sys, models.mixer_files as m; m.version_of('s4d'); print('models.mixers.s4d' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_version_of_a_user_file(tmp_path: Path) -> None:
    file = tmp_path / "my_file.py"
    for text, version in (("", 1), ("VERSION = 5\n", 5)):
        file.write_text(MINE + text)
        assert resolve(str(file)).version == version
    for invalid in ("0", "'2'", "True", "2.0"):
        file.write_text(f"{MINE}VERSION = {invalid}\n")
        with pytest.raises(ValueError, match=r"my_file.py: VERSION must be an integer of at least 1"):
            resolve(str(file))


MINE = """
from __future__ import annotations
from typing import Any, Literal
from flax import nnx
from models.core import Dims, QKVAttention

class Mine(nnx.Module):
    def __init__(self, dims: Dims, *, window: int = 8, kind: Literal["a", "b"] = "a", rngs: nnx.Rngs) -> None:
        self.window = window

    def __call__(self, x, mask, *, rng_keys=None):
        return self.window * x
"""


def test_a_user_file_is_found_and_reloaded_when_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_file.py"
    file.write_text(MINE)
    monkeypatch.chdir(tmp_path)
    mixers = [resolve(spec) for spec in (f"{file}:Mine", "my_file.py:Mine", "my_file.py")]
    assert mixers[0].cls is mixers[1].cls is mixers[2].cls
    assert mixers[0].name == "my_file.py:Mine"
    assert mixers[0].complexity is None
    assert mixers[0].sha256 == hashlib.sha256(MINE.encode()).hexdigest()
    assert label("my_file.py", {"window": 8, "kind": "b"}) == f"my_file.py:Mine@{mixers[0].sha256[:8]}(kind=b)"
    mixer = build(mixers[0].cls, DIMS, parse_options(mixers[0].cls, ["window=3"]), nnx.Rngs(0))
    assert (mixer(*inputs()) == 3 * inputs()[0]).all()

    file.write_text(MINE.replace("self.window * x", "x"))  # an edited file is another mixer
    assert resolve("my_file.py").sha256 != mixers[0].sha256
    assert (resolve("my_file.py").cls(DIMS, rngs=nnx.Rngs(0))(*inputs()) == inputs()[0]).all()


def test_importable_classes_are_found() -> None:
    assert resolve("models.mixers.linear:Linear") == resolve("linear")
    mixer = resolve("flax.nnx:Linear")
    assert mixer.name == "flax.nnx:Linear"
    assert mixer.sha256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "cosfromer",
            r"unknown mixer 'cosfromer' \(did you mean 'cosformer'\?\); a mixer is one of .*, or package.module:",
        ),
        ("nowhere.py:Mine", "there is no file .*nowhere.py; a mixer is one of"),
        ("no_such_package.sub:Mine", "there is no module no_such_package.sub; a mixer is one of"),
        ("models.mixers.linear:Quadratic", "linear.py has no mixer Quadratic; it has Linear"),
        ("models.mixers.linear:COMPLEXITY", "has no mixer COMPLEXITY"),
    ],
)
def test_unknown_mixers_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(spec)


def test_a_file_with_several_classes_needs_a_class_name(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(MINE + "\nclass Other(Mine):\n    pass\n")
    with pytest.raises(ValueError, match=r"name the class, .*two.py:Class; .* has Mine, Other"):
        resolve(str(file))
    assert resolve(f"{file}:Other").cls.__name__ == "Other"
    file.write_text("x = 1\n")
    with pytest.raises(ValueError, match="has none"):
        resolve(str(file))
    file.write_text("import a_module_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        resolve(str(file))


def test_the_error_for_the_old_name_of_rng_keys_says_what_to_rename(tmp_path: Path) -> None:
    file = tmp_path / "my_file.py"
    file.write_text(MINE.replace("rng_keys", "keys"))
    with pytest.raises(ValueError, match=r"my_file.py': rename the parameter keys of Mine.__call__ to rng_keys"):
        resolve(str(file))


class Options:
    def __init__(
        self,
        dims: Dims,
        *,
        window: int = 64,
        rate: float | None = 0.5,
        shared: bool = False,
        kind: Literal["a", "b", 3] = "a",
        sizes: tuple[int, ...] = (1, 2),
        name: str | None = None,
        rngs: nnx.Rngs,
    ) -> None: ...

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        return x


def test_options_are_the_keywords_of_the_constructor() -> None:
    valid = options(Options)
    assert list(valid) == ["window", "rate", "shared", "kind", "sizes", "name"]
    assert valid["window"] == (int, 64)
    texts = ["window=32", "rate=none", "shared=True", "kind=3", "sizes=4,5,6", "name=x=y"]
    want = {"window": 32, "rate": None, "shared": True, "kind": 3, "sizes": (4, 5, 6), "name": "x=y"}
    assert parse_options(Options, texts) == want
    assert parse_options(Options, ["rate=1e-3", "name=none"]) == {"rate": 1e-3, "name": None}
    assert parse_options(Options, []) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("window", "'window' is not an option of the form name=value"),
        ("width=3", "Options has no option 'width'; its options: window=64, rate=0.5, shared=False, kind=a, sizes="),
        ("window=3.5", "option window=3.5: not an int"),
        ("rate=fast", "option rate=fast: not one of float, NoneType"),
        ("shared=yes", "option shared=yes: not true or false"),
        ("kind=c", "option kind=c: not one of a, b, 3"),
        ("sizes=1,x", "option sizes=1,x: not an int"),
    ],
)
def test_invalid_option_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(Options, [text])


def test_build_and_label_refuse_unknown_options_and_choices() -> None:
    with pytest.raises(ValueError, match="cosformer has no option 'window'; its options: eps=1e-06"):
        build(resolve("cosformer").cls, DIMS, {"window": 3}, nnx.Rngs(0))
    with pytest.raises(ValueError, match="softmax has no option 'eps'; its options: positions=protocol, decay=none"):
        label("softmax", {"eps": 3})
    with pytest.raises(ValueError, match="QKVAttention has no option 'eps'; its options: none"):
        build(QKVAttention, DIMS, {"eps": 3}, nnx.Rngs(0))
    with pytest.raises(ValueError, match="cosformer: option m=padded: not one of max_len, own"):
        build(resolve("cosformer").cls, DIMS, {"m": "padded"}, nnx.Rngs(0))
    assert label("cosformer", {"eps": 1e-6}) == "cosformer"
    assert label("cosformer", {"eps": 1e-4}) == "cosformer(eps=0.0001)"


HARD = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somewhere import Window

class Hard:
    def __init__(
        self, dims: "Dims", *, window: "Window" = 64, rate=0.5, kind=None, sizes=(1, 2), scale: "int | None" = 1, rngs
    ) -> "Unknown": ...

    def __call__(self, x, mask, *, rng_keys=None):
        return x
"""


def test_options_without_a_known_annotation_have_the_type_of_their_default(tmp_path: Path) -> None:
    (tmp_path / "hard.py").write_text(HARD)
    hard = resolve(str(tmp_path / "hard.py")).cls
    assert {name: annotation for name, (annotation, _) in options(hard).items()} == {
        "window": int,
        "rate": float,
        "kind": Any,
        "sizes": Any,
        "scale": int | None,
    }
    texts = ["window=3", "rate=1", "kind=64", "sizes=[4, 5.5]", "scale=2"]
    assert parse_options(hard, texts) == {"window": 3, "rate": 1.0, "kind": 64, "sizes": (4, 5.5), "scale": 2}
    for text, value in (("none", None), ("True", True), ("'a'", "a"), ("1e-3", 1e-3)):
        assert parse_options(hard, [f"kind={text}"]) == {"kind": value}
    for text in ("fast", "{1}", "b'x'", "1j", "(1, (2,))", "f()"):
        with pytest.raises(ValueError, match=r"Hard: option kind=.*: not "):
            parse_options(hard, [f"kind={text}"])


def test_constructors_that_do_not_name_their_options_are_explained() -> None:
    class Loose:
        def __init__(self, dims: Dims, *, rngs: nnx.Rngs, **anything: int) -> None: ...

    class Required:
        def __init__(self, dims: Dims, *, window: int, rngs: nnx.Rngs) -> None: ...

    class Nothing: ...

    for cls, message in (
        (Loose, r"test_mixers.py: Loose.__init__: name each option instead of \*\*anything, as in"),
        (Required, r"test_mixers.py: Required.__init__: the option window has no default; give it one"),
        (Nothing, r"Nothing has no constructor `def __init__\(self, dims, \*, rngs\)`"),
    ):
        with pytest.raises(ValueError, match=message):
            options(cls)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e101, -(10**101), (1.0, math.nan)])
def test_numbers_that_records_refuse_are_refused(value: Any) -> None:
    for name in ("rate", "sizes"):
        with pytest.raises(ValueError, match=rf"Options: option {name}=.*: not a finite number of at most 1e\+100"):
            check_options(Options, {name: value})
    assert check_options(Options, {"rate": 1e100}) is None
