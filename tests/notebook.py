"""Execute a notebook without Jupyter: `python -m tests.notebook examples/quickstart.ipynb` renews its outputs.

The code cells run one after the other in one namespace. A cell's outputs are what it prints, the value of its last
expression, and the figures that `plt.show()` shows.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = 64  # of a figure, so that the notebook stays small

Cell = dict[str, Any]


def code_cells(notebook: dict[str, Any]) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def execute(cells: list[Cell], dpi: int = 60) -> None:
    """Run code cells and replace their outputs. An exception ends it."""
    os.environ["MPLBACKEND"] = "agg"
    import matplotlib.pyplot as plt

    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        outputs: list[dict[str, Any]] = []

        def show(outputs: list[dict[str, Any]] = outputs) -> None:
            for figure in map(plt.figure, plt.get_fignums()):
                rgba, png = io.BytesIO(), io.BytesIO()
                figure.savefig(rgba, dpi=dpi, format="png")
                Image.open(rgba, formats=["PNG"]).convert("RGB").quantize(COLOURS).save(png, "png", optimize=True)
                data = {"image/png": base64.b64encode(png.getvalue()).decode()}
                outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
            plt.close("all")

        plt.show = show  # type: ignore[assignment]
        tree = ast.parse("".join(cell["source"]))
        value = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"cell {number}", "exec"), namespace)
            result = eval(compile(value, f"cell {number}", "eval"), namespace) if value else None
        if text := printed.getvalue():
            outputs.insert(0, {"output_type": "stream", "name": "stdout", "text": lines(text)})
        if result is not None:
            data = {"text/plain": lines(repr(result))}
            outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
        cell["outputs"], cell["execution_count"] = outputs, number


def main(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    execute(code_cells(notebook))
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
