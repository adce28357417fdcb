"""What a benchmark leaves beside `bench.json`: the page `bench.md` and the figure `bench.png`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lra.bench.chart import NoChart, chart, draw
from lra.bench.run import Results
from lra.bench.tables import as_markdown
from lra.leaderboard.published import efficiency
from lra.record.files import RecordFile
from lra.record.schema import Record


def write(results: Results, found: Iterable[RecordFile[Record]], directory: Path) -> str:
    """Writes page and figure; returns a line that says where they are, or why there is no figure.

    found: records, for the accuracies of the figure
    """
    picture = directory / "bench.png"
    try:
        drawn = chart(results, found)
    except NoChart as missing:
        picture.unlink(missing_ok=True)  # of an earlier run
        shown = said = str(missing)
    else:
        draw(drawn, results, picture)
        shown = f"![Accuracy, training speed and peak memory of {len(drawn.bubbles)} mixers](bench.png)"
        said = str(picture)
    page = directory / "bench.md"
    page.write_text(as_markdown(results, efficiency(), shown))
    return f"{page}; {said}"
