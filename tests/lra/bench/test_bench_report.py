"""Tables, page and figure of a benchmark, and published tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lra.bench import chart as bench_chart
from lra.bench import report as bench_report
from lra.bench import tables as bench_tables
from lra.bench.measure import BenchResult, Speed
from lra.bench.roofline import Roofline
from lra.bench.run import BenchSetting, Results
from lra.leaderboard import published
from lra.paths import results_directory
from lra.provenance.environment import now
from lra.record import files as record
from tests.lra.leaderboard.test_leaderboard import run

ENVIRONMENT = {"backend": "cpu", "device": "abacus", "device_count": 1, "cores": 2, "jax": "1.2.3"}


def cell(mixer: str, length: int, seconds: float = 1.0, peak: int = 2**20, **changes: Any) -> BenchResult:
    speed = Speed(7, (0.9 * seconds, seconds, 1.25 * seconds))
    made = BenchResult(mixer, length, "measured", "", 10, 1, 2.0, 4e9, 1e9, 3 * 2**20, 2**30, peak, speed, speed)
    return dataclasses.replace(made, **changes)


def results(*cells: BenchResult) -> Results:
    roof = Roofline(flops_per_second=16e9, bytes_per_second=8e9)
    words = (now(), "python run_lra.py bench", "small@1", 32, "float32")
    setting = BenchSetting(*words, roof, dict(ENVIRONMENT), {"sha256": "f" * 64})
    return Results(setting, cells)


SOME = results(
    cell("softmax", 1024, 0.5, 2**30, implementation="blocks in training, cudnn in inference"),
    cell("softmax", 2048, 2.0, 2**32, implementation="blocks in training, cudnn in inference"),
    cell("softmax", 4096, status="oom", training=None, inference=None, peak_bytes=None, needed_bytes=2**34),
    cell("cosformer", 1024, 0.25, 2**28),
    cell("cosformer", 2048, 0.5, 2**29),
    cell("cosformer", 4096, 1.0, 2**30),
    cell("mine", 1024, status="failed", reason="mine.py:3 raised ValueError: <b>|", training=None, peak_bytes=None),
)


def rows(table: bench_tables.TextTable) -> dict[str, tuple[str, ...]]:
    return {name: tuple(texts) for name, *texts in table.rows}


def test_ratios_are_to_softmax_at_the_same_length() -> None:
    training, inference, memory = bench_tables.ratios(SOME)
    assert training.columns == ("1,024", "2,048", "4,096")
    assert rows(training)["cosformer"] == ("2.0x", "4.0x", "–")
    assert rows(training)["softmax"] == ("1.0x", "1.0x", "OOM")
    assert rows(training)["mine"] == ("failed", "–", "–")
    assert rows(inference) == rows(training)
    assert rows(memory)["cosformer"] == ("0.25x", "0.12x", "–")
    assert [name for name, *_ in training.rows] == ["cosformer", "softmax", "mine"]
    assert not bench_tables.ratios(results(*(c for c in SOME.cells if c.mixer != "softmax")))


def test_figures_and_further_tables() -> None:
    training, _, memory = bench_tables.figures(SOME)
    assert rows(training)["cosformer"] == ("4 (3.2–4.44; 7)", "2 (1.6–2.22; 7)", "1 (0.8–1.11; 7)")
    assert rows(memory)["softmax"] == ("1.0 GiB", "4.0 GiB", "OOM, needs 16.0 GiB")
    scaling, needed, flops, achieved, utilisation, distance, compiling = bench_tables.further(SOME)
    assert scaling.title.startswith("Exponents p of cost ~ L^p from 2,048 to 4,096 tokens")
    assert rows(scaling)["cosformer"] == ("1.00", "0.00", "0.00", "L", "L")
    assert rows(scaling)["softmax"] == ("–", "–", "–", "L^2", "L")  # not measured at 4,096
    assert rows(scaling)["mine"] == ("–",) * 5
    assert rows(needed)["cosformer"][0] == "3 MiB"
    assert rows(flops)["cosformer"][0] == "4 G"
    assert rows(achieved)["cosformer"] == ("16 G", "8 G", "4 G")
    assert rows(utilisation)["cosformer"] == ("100.0%", "50.0%", "25.0%")  # of a roof of 16 GFLOP/s
    assert rows(distance)["cosformer"] == ("1.0x arithmetic", "2.0x arithmetic", "4.0x arithmetic")
    moving = results(cell("cosformer", 1024, 0.5, moved_bytes=3e9))
    assert rows(bench_tables.further(moving)[4])["cosformer"] == ("1.3x memory",)  # 3 GB at 8 GB/s: 0.375 s
    assert rows(compiling)["cosformer"][0] == "2"
    assert bench_tables.speed_text(Speed(1, (0.5, 0.5, 0.5))) == "2 (one step)"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(12.4, "12x"), (9.96, "10x"), (3.44, "3.4x"), (0.999, "1.0x"), (0.8, "0.80x"), (0.0123, "0.012x")],
)
def test_ratios_have_two_digits(ratio: float, text: str) -> None:
    assert bench_tables.ratio_text(ratio) == text


def test_page_and_figure(tmp_path: Path) -> None:
    committed = record.find([(results_directory(), "committed")])
    assert bench_report.write(SOME, committed, tmp_path).endswith("bench.png")
    page = (tmp_path / "bench.md").read_text()
    assert "| cosformer | 2.0x | 4.0x | – |" in page
    assert page.count("Implementation of softmax attention: blocks in training, cudnn in inference.") == 1
    assert "mine at 1,024 failed: mine.py:3 raised ValueError: &lt;b&gt;\\|" in page
    assert "| Performer | 9.5 · 1.2x | 9.4 · 1.9x | 8.7 · 3.8x | 8 · 5.7x |" in page
    assert "![" in page
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert bench_report.write(SOME, [], tmp_path).endswith("`run_lra.py suite` makes some.")
    assert not (tmp_path / "bench.png").exists()
    assert "No chart" in (tmp_path / "bench.md").read_text()


def test_figure_combines_speeds_of_one_length_with_accuracies_of_one_table() -> None:
    tasks = ("listops", "text", "retrieval", "image")
    accuracies = {"cosformer": (0.3, 0.7, 0.75, 0.4), "softmax": (0.35, 0.71, 0.72, 0.36)}
    committed = [
        run(accuracy, task=task, mixer=mixer, origin="committed", data=task[0].encode().hex() * 32)
        for mixer, of_tasks in accuracies.items()
        for task, accuracy in zip(tasks, of_tasks, strict=True)
    ]
    chart = bench_chart.chart(SOME, committed)
    assert chart.length == 2048  # the longest of softmax
    assert "quick@2, mean of 4 tasks: ListOps, Text, Retrieval (AAN), Image" in chart.accuracy
    bubbles = {b.mixer: b for b in chart.bubbles}
    assert set(bubbles) == {"softmax", "cosformer"}
    assert bubbles["cosformer"].speed == 4
    assert bubbles["cosformer"].peak_bytes == 2**29
    assert bubbles["cosformer"].accuracy == pytest.approx(100 * sum(accuracies["cosformer"]) / 4)
    with pytest.raises(bench_chart.NoChart, match="not measured"):
        bench_chart.chart(results(cell("cosformer", 1024)), committed)


# ---- published tables


def test_published_figures() -> None:
    memory: Any
    speed, memory, training, inference = published.efficiency()
    assert speed.rows["Transformer"] == (8.1, 4.9, 2.3, 1.4)
    assert memory.rows["Transformer"] == (0.85, 2.65, 5.51, 9.48)
    assert speed.hardware == memory.hardware == "4 x 4 TPU v3"
    assert training.rows["cosFormer"] == (12.27, 5.72, 3.62, 2.64)
    assert inference.rows["cosFormer"] == (58.82, 33.45, 22.77, 17.42)
    assert training.rows["Transformer"] == (6.95, 2.23, None, None)
    assert "inferred" in training.hardware
    assert len(speed.rows) == len(memory.rows) == 9
    assert len(training.rows) == len(inference.rows) == 12
    assert rows(bench_tables.published_table(training))["cosFormer"] == (
        "12.27 · 1.8x",
        "5.72 · 2.6x",
        "3.62 · –",
        "2.64 · –",
    )


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[8.1, 4.9, 2.3, 1.4]", "[8.1, 4.9, 2.3]", "Transformer has 3 figures for 4 lengths"),
        ("[8.1, 4.9, 2.3, 1.4]", '[8.1, 4.9, 2.3, "OOM"]', "'OOM' is neither a positive number nor 'X'"),
        ("[8.1, 4.9, 2.3, 1.4]", "[8.1, 4.9, 2.3, -1.4]", "neither a positive number"),
        ('reference = "Transformer"', 'reference = "softmax"', "no row 'softmax'"),
        ('hardware = "4 x 4 TPU v3"\n', "", "hardware"),
    ],
)
def test_a_mistake_in_the_published_tables_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = published.EFFICIENCY.read_text()
    assert before in text
    (tmp_path / "efficiency.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(ValueError, match=message):
        published.efficiency(tmp_path / "efficiency.toml")
