"""A run's record comes to results/ once, whole, checked; nothing there is ever replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lra.errors import RecordError, RunError
from lra.record import files as rec
from lra.record.schema import Record, RunRecord
from lra.record.submit import _shortened, submit
from tasks.core import Prepared
from tests.lra.record.test_validation import CODE, ENVIRONMENT, data, made, prepared, put, set_at

__all__ = ["data", "prepared"]  # fixtures


def finished(record: dict[str, Any], tmp_path: Path) -> Path:
    """The run's directory with this record."""
    directory = tmp_path / "runs" / record["id"].replace("../", "up-")
    put(record, directory / "records")
    (directory / "config.json").write_text("{}")
    return directory


def committed(tmp_path: Path) -> dict[str, bytes]:
    files = (p for p in (tmp_path / "results").rglob("*") if p.is_file())
    return {str(p.relative_to(tmp_path / "results")): p.read_bytes() for p in files}


def test_a_run_is_submitted_once(data: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = made(data)
    directory = finished(record, tmp_path)
    (path,) = submit(directory.name)
    assert path == tmp_path / "results" / "quick" / f"{record['id']}.json"
    assert rec.read(path).as_json() == record
    before = committed(tmp_path)
    assert "there already" not in capsys.readouterr().err
    assert submit(str(directory)) == [path]  # by its path
    assert "there already, with the same content" in capsys.readouterr().err
    assert committed(tmp_path) == before


def test_other_content_is_not_replaced(data: Prepared, tmp_path: Path) -> None:
    record = made(data)
    submit(finished(record, tmp_path).name)
    before = committed(tmp_path)
    directory = finished(record | {"seconds": 2.0}, tmp_path)
    with pytest.raises(RecordError, match=r"nothing was copied(.|\n)*is a record of the same run(.|\n)*another seed"):
        submit(directory.name)
    assert committed(tmp_path) == before


def test_what_stands_in_the_place_unreadable_is_not_replaced(data: Prepared, tmp_path: Path) -> None:
    record = made(data)
    place = tmp_path / "results" / "quick" / f"{record['id']}.json"
    place.parent.mkdir(parents=True)
    place.write_text("{")
    with pytest.raises(RecordError, match="not readable"):
        submit(finished(record, tmp_path).name)
    assert committed(tmp_path) == {f"quick/{place.name}": b"{"}


def test_what_fails_is_not_copied(data: Prepared, tmp_path: Path) -> None:
    for record in (set_at(made(data), "test.accuracy", 0.99), set_at(made(data, seed=1), "id", "../x")):
        with pytest.raises(RecordError, match=r"nothing was copied(.|\n)*(test.accuracy|not a plain name)"):
            submit(finished(record, tmp_path).name)
    assert committed(tmp_path) == {}
    assert not list(tmp_path.rglob("x.json"))  # wherever the id would lead


def test_the_newest_record_goes(data: Prepared, tmp_path: Path) -> None:
    """Truncated ones say so in their name, and are not taken where the run has come further."""
    record = made(data)
    directory = finished(record, tmp_path) / "records"
    (directory / f"{record['id']}.json").unlink()

    def truncated(steps: int) -> dict[str, Any]:
        course = {"validation": [[100, 2.0, 0.5]], "curve": [[1, 2.0, 0.1]]}
        return record | course | {"status": "truncated", "steps": {"done": steps, "planned": 500}}

    for steps in (300, 400):
        rec.write(directory, RunRecord.model_validate(truncated(steps)))
    assert [p.name for p in submit(record["id"])] == [f"{record['id']}-truncated-400.json"]
    rec.write(directory, RunRecord.model_validate(record))
    assert [p.name for p in submit(record["id"])] == [f"{record['id']}.json"]
    assert len(committed(tmp_path)) == 2


def test_as_a_whole_or_not_at_all(data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = made(data)
    directory = finished(record, tmp_path)
    ended = {"status": "diverged", "test": {}, "selection": {"rule": "validation", "step": None, "best_step": 100}}
    rec.write(directory / "records", RunRecord.model_validate(record | ended))  # a second record that is as new
    write = rec.write
    written: list[Path] = []

    def full(place: Path, record: Record) -> Path:
        if written:
            raise OSError("no space left")
        written.append(write(place, record))
        return written[0]

    monkeypatch.setattr(rec, "write", full)
    with pytest.raises(RunError, match="no space left"):
        submit(directory.name)
    assert written
    assert committed(tmp_path) == {}


def test_a_run_that_is_not_there_or_not_finished(data: Prepared, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run 'x' in .*the runs are: none"):
        submit("x")
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    (tmp_path / "runs" / "begun" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="begun has no record yet"):
        submit("begun")
    with pytest.raises(RunError, match="the runs are: begun"):
        submit("x")


@pytest.mark.parametrize("overrides", [{"train.steps": 150}, {"train.steps": 499}])
def test_a_run_with_fewer_steps_than_its_protocol_is_not_copied(
    data: Prepared, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    steps = overrides["train.steps"]
    with pytest.raises(RecordError, match=rf"nothing was copied: this run was shortened \(train\.steps={steps}\)"):
        submit(finished(made(data, overrides=overrides), tmp_path).name)
    assert committed(tmp_path) == {}
    longer = made(data, overrides={"train.learning_rate": 3e-3})
    assert len(submit(finished(longer, tmp_path).name)) == 1  # another rate is a choice, and is shown as modified


def test_a_run_tested_on_a_part_of_the_split_is_not_copied(data: Prepared, tmp_path: Path) -> None:
    record = RunRecord.model_validate(made(data))
    limited = record.model_copy(update={"config": record.config.model_copy(update={"limit": 16})})
    assert _shortened(limited) == ["limit=16"]


@pytest.mark.parametrize("code", [{"git_clean": False}, {"git_commit": None, "git_clean": None}])
@pytest.mark.parametrize("later", [False, True])
def test_a_run_whose_code_is_not_that_of_a_commit_is_not_copied(
    data: Prepared, tmp_path: Path, code: dict[str, Any], later: bool
) -> None:
    record = made(data)
    if later:
        session = {"step": 5, "started": record["created"], "environment": ENVIRONMENT, "code": CODE | code}
        record["later_sessions"] = [session]
    else:
        record["code"] |= code
    with pytest.raises(RecordError, match="nothing was copied: this run's code is not that of a git commit"):
        submit(finished(record, tmp_path).name)
    assert committed(tmp_path) == {}
