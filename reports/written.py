"""All reports of a trial, written beside its record."""

from __future__ import annotations

import hashlib
from pathlib import Path

from conformance.catalogue import load_catalogue
from conformance.record import Evidence, Record
from conformance.trial.recorder import RECORD_FILE
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
    written = directory / RECORD_FILE
    digest = hashlib.sha256(written.read_bytes()).hexdigest() if written.is_file() else ""
    pages = {
        SCORECARD: render_scorecard(record, catalogue, exhibits=_exhibits(record, directory), record_sha256=digest),
        "junit.xml": render_junit(record, catalogue),
        "summary.md": render_markdown(record, catalogue),
        "badge.json": badge_json(badge),
        "badge.svg": badge_svg(badge),
    }
    for name, page in pages.items():
        whole = directory / f".{name}"
        whole.write_text(page, encoding="utf-8")
        whole.replace(directory / name)
    return directory / SCORECARD


def _exhibits(record: Record, directory: Path) -> dict[str, Exhibit]:
    """The small evidence files that still are what the record says, by their path in it."""
    evidence = [item for row in record.rows for item in row.evidence]
    contents = {item.path: _content(item, directory.resolve()) for item in evidence}
    return {path: Exhibit(data) for path, data in contents.items() if data is not None}


def _content(evidence: Evidence, directory: Path) -> bytes | None:
    """The file's bytes; None if it is large, gone, changed since, or not inside the run directory."""
    try:
        path = (directory / evidence.path).resolve()
        if not path.is_relative_to(directory) or not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(_MOST_EXHIBIT_BYTES + 1)
    except (OSError, ValueError):
        return None
    intact = len(data) <= _MOST_EXHIBIT_BYTES and hashlib.sha256(data).hexdigest() == evidence.sha256
    return data if intact else None
