"""The pages of docs/: links lead somewhere, commands have valid arguments, and tables are those of the records."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

import run_lra
from lra import config as cfg
from lra.record.status import STATES
from tasks import LRA_TASKS, load_task
from tasks.core import SPLITS
from tasks.listops.grammar import encode, evaluate
from tests import doc_tables, mixer_reference

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *DOCS]
COMMAND = re.compile(r"^(?:    |\$ )(?:\w+=\S+ )*python run_lra\.py (.*)$", re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{target} does not exist"
        assert linked.is_relative_to(ROOT), f"{target} is outside of the project"
        assert not anchor or anchor in anchors(linked.read_text("utf-8")), f"{target} has no such heading"


def test_pages_that_other_files_name_exist() -> None:
    folders = ("lra", "models", "tasks", "configs", "tests", "benchmarks", "examples", ".github")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    paths += [*ROOT.glob("*.py"), *ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile"]
    for path in paths:
        if path.suffix in (".py", ".toml", ".md", ".html", ".sh", ".yml", "") and path.is_file():
            for page in re.findall(r"\bdocs/[\w-]+\.(?:md|png)", path.read_text("utf-8", errors="replace")):
                assert (ROOT / page).exists(), f"{path} names {page}"


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    assert {f.name for f in DOCS} - {"README.md"} <= set(re.findall(r"\(([\w-]+\.md)\)", index))


@pytest.mark.parametrize("path", [path for path in PAGES if COMMAND.search(path.read_text("utf-8"))], ids=name)
def test_commands_have_valid_arguments(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    for command in vars(run_lra).values():
        if isinstance(command, type) and hasattr(command, "run"):
            monkeypatch.setattr(command, "run", lambda self: ran.append(self) or 0)
    lines = COMMAND.findall(path.read_text("utf-8"))
    for line in lines:
        for words in alternatives(shlex.split(line, comments=True)):
            assert run_lra.main(words) == 0, line
    assert len(ran) >= len(lines)


def alternatives(words: list[str]) -> list[list[str]]:
    """Return the commands that a line shows, as two for `data prepare | verify`; `> file` ends a command."""
    words = words[: words.index(">")] if ">" in words else words
    if "|" not in words:
        return [words]
    i = words.index("|")
    return [words[:i], *([*words[: i - 1], word] for word in words[i + 1 :] if word == "verify")]


@pytest.mark.parametrize("page", ["results.md", "recipes.md", "tasks.md"])
def test_tables_are_those_of_the_records(page: str) -> None:
    text, current = doc_tables.pages()[page]
    assert text == current, "run `python -m tests.doc_tables` and review the page"


@pytest.mark.slow
def test_the_reference_of_the_mixers_is_that_of_their_files() -> None:
    text = mixer_reference.PAGE.read_text("utf-8")
    assert text == mixer_reference.page(), "run `python -m tests.mixer_reference` and review the page"


def test_the_overview_of_tasks_has_the_sizes_of_the_cards() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text("utf-8")
    for task in cfg.TASKS[: len(LRA_TASKS)]:
        card = load_task(task).CARD
        sizes = card.variants["full"].sizes
        counts = " / ".join(f"{sizes[split]:,}" if split in sizes else "–" for split in SPLITS)
        (row,) = re.findall(rf"^\| \[\w+\]\(#{task}\) .*$", page, re.MULTILINE)
        assert row.endswith(f"| {len(card.classes)} | {counts} |")
        if task != "listops":
            assert f"{cfg.protocol(task, 'small').max_len:,} |" in row


def test_the_expression_on_the_page_of_tasks_has_the_value_and_the_length_that_the_page_gives() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text("utf-8")
    (expression,) = re.findall(r"^    (\[M.*\])$", page, re.MULTILINE)
    length, value = re.search(r"An example of (\d+) tokens.*?with value (\d)", page, re.DOTALL).groups()
    assert (evaluate(expression), len(encode(expression))) == (int(value), int(length))


def test_the_page_of_clusters_has_the_options_of_slurm_and_the_states_of_runs() -> None:
    page = (ROOT / "docs" / "clusters.md").read_text("utf-8")
    slurm = cfg.Slurm()
    assert {f.name.replace("_", "-") for f in dataclasses.fields(slurm)} == set(
        re.findall(r"`--slurm\.([\w-]+)`", page)
    )
    for row in (
        f"| `--slurm.minutes` | {slurm.minutes} |",
        f"| `--slurm.gpus` | {slurm.gpus} |",
        f"| `--slurm.cpus`, `--slurm.memory-gb` | {slurm.cpus}, {slurm.memory_gb} |",
        f"| `--slurm.at-once` | {slurm.at_once} |",
    ):
        assert row in page
    assert re.findall(r"^\| (\w+) \|", page.partition("| state |")[2], re.MULTILINE) == list(STATES)
