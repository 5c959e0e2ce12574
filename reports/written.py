"""All reports of a trial, written beside its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from conformance.calibration.results import Calibration
from conformance.catalogue import Catalogue, load_catalogue
from conformance.comparison import Comparison
from conformance.corpus.safetensors.keep import Kept
from conformance.done.gates import DoneLine
from conformance.gate.decision import Decision
from conformance.record import RECORD_FILE, Evidence, Record
from conformance.thresholds import load_thresholds
from reports.badge import badge_json, badge_svg, make_badge
from reports.calibration import calibration_section, sentences
from reports.difference import comparison_section
from reports.extra import Extra
from reports.hexdump import Exhibit
from reports.junit import render_junit
from reports.kills import Severity, kill_section
from reports.markdown import render_markdown
from reports.scorecard import render_scorecard
from reports.tables import done_section

SCORECARD = "scorecard.html"
_MOST_EXHIBIT_BYTES = 64 * 1024
_SIDECAR, _COUNTER_EXAMPLE = ".json", ".safetensors"


class Attachments(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows besides its record, where it is given; `source` is the record's own file."""

    decision: Decision | None = None
    comparison: Comparison | None = None
    history: tuple[Record, ...] = ()
    severity: Severity | None = None
    done: tuple[DoneLine, ...] | None = None
    calibrations: tuple[Calibration, ...] = ()
    source: Path | None = None


def write_reports(record: Record, directory: Path, attachments: Attachments | None = None) -> Path:
    """Write scorecard.html, junit.xml, summary.md, badge.svg and badge.json; the scorecard's path.

    Raises:
        OSError: the directory cannot be written.
    """
    catalogue, attached = load_catalogue(), attachments or Attachments()
    badge = make_badge(record, catalogue, attached.decision)
    source = attached.source or directory / RECORD_FILE
    scorecard = render_scorecard(
        record,
        catalogue,
        exhibits=exhibits(record, source.parent),
        extras=_extras(attached, catalogue),
        raw=source.read_bytes() if source.is_file() else b"",
        thresholds_sha256=load_thresholds().sha256,
        killers=attached.severity.killers() if attached.severity else None,
        decision=attached.decision,
        history=attached.history,
        calibrated=sentences(attached.calibrations),
    )
    pages = {
        SCORECARD: scorecard,
        "junit.xml": render_junit(record, catalogue, attached.decision),
        "summary.md": render_markdown(record, catalogue, attached.decision),
        "badge.json": badge_json(badge),
        "badge.svg": badge_svg(badge),
    }
    for name, page in pages.items():
        whole = directory / f".{name}"
        whole.write_text(page, encoding="utf-8")
        whole.replace(directory / name)
    return directory / SCORECARD


def _extras(attached: Attachments, catalogue: Catalogue) -> list[Extra]:
    compared = [comparison_section(attached.comparison)] if attached.comparison else []
    return [
        *compared,
        kill_section(attached.severity, catalogue),
        calibration_section(attached.calibrations),
        done_section(attached.done),
    ]


def exhibits(record: Record, directory: Path) -> dict[str, Exhibit]:
    """The small evidence files that still are what the record says, by their path in it.

    A kept counter-example is marked where its sidecar, evidence too, says that it differs from the valid file.
    """
    evidence = [item for row in record.rows for item in row.evidence]
    contents = {item.path: _content(item, directory.resolve()) for item in evidence}
    found = {path: data for path, data in contents.items() if data is not None}
    return {path: Exhibit(data, _marks(path, found)) for path, data in found.items()}


def _marks(path: str, contents: Mapping[str, bytes]) -> tuple[tuple[int, int], ...]:
    sidecar = contents.get(path.removesuffix(_COUNTER_EXAMPLE) + _SIDECAR) if path.endswith(_COUNTER_EXAMPLE) else None
    if sidecar is None:
        return ()
    try:
        kept = msgspec.json.decode(sidecar, type=Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ()
    same = hashlib.sha256(contents[path]).hexdigest() == kept.sha256
    return tuple(kept.changed) if same else ()


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
