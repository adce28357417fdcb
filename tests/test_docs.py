"""What docs/ tells a reader to do, done: from the text, in a directory of its own, as a new user would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lra.record import files as record

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "add-a-mixer.md").read_text()
ADD_A_MIXER, COMPARE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SMALL = ["--model.layers", "1", "--model.d-model", "16", "--model.qkv-dim", "16", "--model.mlp-dim", "16"]


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "COLUMNS": "100",
        "LRA_RUNS": str(cwd / "runs"),
        "LRA_PREPARED": str(ROOT / ".cache" / "prepared-for-tests"),
    }
    words = (sys.executable, str(ROOT / "run_lra.py"), *words)
    return subprocess.run(words, capture_output=True, text=True, env=environment, cwd=cwd)


@pytest.mark.slow
def test_a_mixer_from_an_empty_file_to_a_row_of_the_board(tmp_path: Path) -> None:
    (tmp_path / "aft.py").write_text(ADD_A_MIXER)
    assert (ROOT / "examples" / "aft.py").read_text() == ADD_A_MIXER
    assert len(ADD_A_MIXER.splitlines()) <= 22
    checked = command("check", "aft.py", "--quick", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    label = re.search(r"aft.py:AFT@[0-9a-f]{8}", checked.stdout)
    assert label
    assert label.group() in PAGE  # the text shows the hash of its own example
    checks = re.findall(r"^(\S.*?) +pass ", checked.stdout, re.MULTILINE)
    assert len(checks) > 10
    assert all(re.search(rf"^{re.escape(check)} +pass ", PAGE, re.MULTILINE) for check in checks)
    words = ["train", "--task", "listops", "--protocol", "quick", "--mixer", "aft.py", "--source", "sample", *SMALL]
    trained = command(*words, "--mixer-options", "temperature=2", "--train.steps", "4", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (path,) = (tmp_path / "runs").glob("listops*/records/*.json")
    assert record.read(path).mixer.label == f"{label.group()}(temperature=2.0)"
    assert f"{label.group()}(temperature=2.0)" in command("leaderboard", "--format", "csv", cwd=tmp_path).stdout

    drawn = command("attention", str(path.parent.parent), cwd=tmp_path)
    assert drawn.returncode == 1
    reason = "AFT has no weights to draw: it is not linear in v, or its weights differ between the features of a head"
    assert reason in drawn.stderr
    assert reason in PAGE

    words[words.index("aft.py")] = "softmax"
    assert command(*words, "--train.steps", "4", cwd=tmp_path).returncode == 0
    environment = {**os.environ, "LRA_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT)}
    compared = subprocess.run([sys.executable, "-c", COMPARE], capture_output=True, text=True, env=environment)
    assert compared.returncode == 0, compared.stderr
    line = r"minus the best row: [+-]\d+\.\d points \([+-]\d+\.\d to [+-]\d+\.\d\)\n"
    assert re.fullmatch(rf"(softmax|{re.escape(label.group())}\S+) {line}", compared.stdout)
    assert re.search(rf"^softmax {line}", PAGE, re.MULTILINE)


@pytest.mark.slow
def test_a_forgotten_mask_fails_the_check(tmp_path: Path) -> None:
    right, wrong = (
        "masked_softmax(k / self.temperature, mask[:, :, None, None], axis=1)",
        "jax.nn.softmax(k / self.temperature, axis=1)",
    )
    assert right in ADD_A_MIXER
    assert wrong in PAGE
    (tmp_path / "aft.py").write_text(ADD_A_MIXER.replace(right, wrong))
    checked = command("check", "aft.py", "--quick", cwd=tmp_path)
    assert checked.returncode == 1
    assert re.search(r"aft.py:AFT@[0-9a-f]{8} FAILS the contract: amount of padding; micro-batches", checked.stdout)
    assert "Mask k, v or the weights" in " ".join(checked.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["aft.py", "--mixer-options", "temprature=2"],
            "AFT has no option 'temprature' (did you mean 'temperature'?); its options: temperature=1.0",
        ),
        (["aft.py:ATF"], "aft.py has no mixer ATF; it has AFT"),
        (["atf.py"], "there is no file"),
    ],
)
def test_a_typo_is_named_and_nothing_runs(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "aft.py").write_text(ADD_A_MIXER)
    done = command("check", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
