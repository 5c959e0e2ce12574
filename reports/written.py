"""All reports of a trial, written beside its record."""

from __future__ import annotations

from pathlib import Path

from conformance.catalogue import load_catalogue
from conformance.record import Record
from reports.badge import badge_json, badge_svg, make_badge
from reports.hexdump import Exhibit
from reports.junit import render_junit
from reports.markdown import render_markdown
from reports.scorecard import render_scorecard

SCORECARD = "scorecard.html"
_MOST_EXHIBIT_BYTES = 64 * 1024


def write_reports(record: Record, directory: Path) -> Path:
    """Write scorecard.html, junit.xml, summary.md, badge.svg and badge.json; the scorecard's path.

    Raises:
        OSError: the directory cannot be written.
    """
    catalogue = load_catalogue()
    badge = make_badge(record, catalogue)
    pages = {
        SCORECARD: render_scorecard(record, catalogue, exhibits=_exhibits(record, directory)),
        "junit.xml": render_junit(record, catalogue),
        "summary.md": render_markdown(record, catalogue),
        "badge.json": badge_json(badge),
        "badge.svg": badge_svg(badge),
    }
    for name, page in pages.items():
        (directory / name).write_text(page, encoding="utf-8")
    return directory / SCORECARD


def _exhibits(record: Record, directory: Path) -> dict[str, Exhibit]:
    """The small evidence files, by their path in the record."""
    found: dict[str, Exhibit] = {}
    for row in record.rows:
        for evidence in row.evidence:
            path = directory / evidence.path
            if evidence.nbytes <= _MOST_EXHIBIT_BYTES and path.is_file():
                found[evidence.path] = Exhibit(path.read_bytes())
    return found
