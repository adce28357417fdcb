"""The page `bench.md` and the figure `bench.png` of a benchmark."""

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
    """Write page and figure; return a line with their paths, or with the reason why there is no figure.

    Args:
      found: records, for the accuracies of the figure
    """
    page, picture = directory / "bench.md", directory / "bench.png"
    try:
        content = chart(results, found)
    except NoChart as missing:
        picture.unlink(missing_ok=True)  # of an earlier run
        figure = line = str(missing)
    else:
        draw(content, results, picture)
        figure = f"![Accuracy, training speed and peak memory of {len(content.bubbles)} mixers](bench.png)"
        line = str(picture)
    page.write_text(as_markdown(results, efficiency(), figure))
    return f"{page}; {line}"
