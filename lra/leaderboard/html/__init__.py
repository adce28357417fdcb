"""The leaderboard as one HTML file without network access. No text of a record becomes markup, an address or an id.

`view_model` collects the content, `charts` computes the charts, and `page.html` lays them out. Jinja escapes every
value. The content security policy names style and script by their hashes, so nothing else runs.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

from lra.leaderboard.html.view_model import page_view
from lra.leaderboard.types import Board

HERE = Path(__file__).resolve().parent


def as_html(board: Board) -> str:
    """Return the board as a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {name: (HERE / f"page.{name}").read_text("utf-8") for name in ("css", "js")}
    hashes = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in own.items()}
    policy = (
        f"default-src 'none'; style-src 'sha256-{hashes['css']}'; script-src 'sha256-{hashes['js']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template("page.html")
    return template.render(page=page_view(board), policy=policy, css=Markup(own["css"]), js=Markup(own["js"])).rstrip()
