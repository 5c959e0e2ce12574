"""Screenshots of a scorecard for README and docs: `python tests/reports/screenshots.py SCORECARD DIRECTORY`.

Needs the extra `browser` and Chromium on the PATH (or named by CHROMIUM).
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

VIEWS = {
    "scorecard": ("light", 1280, 1380),
    "scorecard-dark": ("dark", 1280, 1380),
    "scorecard-narrow": ("light", 400, 1100),
}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")


def main(page_file, directory):
    url = Path(page_file).resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, (scheme, width, height) in VIEWS.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            page.goto(url)
            page.screenshot(path=Path(directory) / f"{name}.png")
        page = browser.new_page(viewport={"width": 900, "height": 1200})
        page.goto(url)
        page.emulate_media(media="print")
        page.screenshot(path=Path(directory) / "scorecard-print.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
