"""The system's Chromium, driven by Playwright: for tests of the leaderboard's page and for its screenshot.

python -m tests.chromium board.html board.png --width 1180 --height 1000 --dark
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


def missing() -> str:
    """Return which part of the browser is not installed, and how to install it; "" if nothing is missing."""
    if CHROMIUM is None:
        return f"none of {', '.join(NAMES)} is installed; Debian's package is `chromium`"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed; run `make install`"
    return ""


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a headless Chromium with an empty profile, and close it at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium refuses to start its sandbox as root, the user of most containers.
        yield playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("html", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--run", default="0", help="JavaScript to evaluate before the screenshot")
    args = parser.parse_args()
    if reason := missing():
        parser.error(reason)
    with browser() as opened:
        page = opened.new_page(
            viewport={"width": args.width, "height": args.height}, color_scheme="dark" if args.dark else "light"
        )
        page.goto(args.html.resolve().as_uri())
        page.evaluate(args.run)
        page.screenshot(path=args.png)


if __name__ == "__main__":
    main()
