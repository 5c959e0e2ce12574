"""Record → badge, as SVG and as JSON for badge services. Green only where every test was survived on a GPU."""

from __future__ import annotations

from html import escape

import msgspec

from conformance.catalogue import Catalogue
from conformance.gate.decision import Decision
from conformance.record import Record
from conformance.verdicts import Verdict
from reports.summary import Summary, summarise

LABEL = "falsify"
_GREEN, _AMBER, _RED, _GREY = "#1c6445", "#8a5a00", "#b3231a", "#565d66"
_COLOUR = {
    Verdict.FALSIFIED: _RED,
    Verdict.ERROR: _RED,
    Verdict.UNTESTED: _GREY,
    Verdict.INCONCLUSIVE: _GREY,
    Verdict.WARNING: _AMBER,
    Verdict.CORROBORATED: _GREEN,
}
_CHARACTER_WIDTH, _PADDING, _HEIGHT = 6.6, 10.0, 20


class Badge(msgspec.Struct, frozen=True, rename="camel"):
    """A badge in the JSON form that badge services read, with all counts beside it."""

    label: str
    message: str
    color: str
    counts: dict[str, int]
    schema_version: int = 1
    is_error: bool = False


def make_badge(record: Record, catalogue: Catalogue, decision: Decision | None = None) -> Badge:
    """What the badge says, and in which colour; with a gate file's decision it says first what the gate says."""
    summary = summarise(record, catalogue)
    colour, message = _colour(record, summary, decision), _message(record, summary)
    if decision is not None:
        message = f"gate {'open' if decision.open and summary.trustworthy else 'shut'}, {message}"
    return Badge(LABEL, message, colour, summary.counts, is_error=colour == _RED)


def _colour(record: Record, summary: Summary, decision: Decision | None) -> str:
    if not summary.trustworthy or (decision is not None and not decision.open):
        return _RED
    colour = _RED if summary.failed_rehearsals else _COLOUR[summary.verdict]
    if colour == _GREEN and record.header.rehearsal:
        return _GREY
    return _AMBER if colour == _RED and decision is not None else colour


def badge_json(badge: Badge) -> str:
    """The badge as JSON."""
    return msgspec.json.encode(badge).decode() + "\n"


def badge_svg(badge: Badge) -> str:
    """The badge as an SVG image that needs no font of a certain width: the text is fitted to its box."""
    left, right = (len(text) * _CHARACTER_WIDTH + 2 * _PADDING for text in (badge.label, badge.message))
    title = escape(f"{badge.label}: {badge.message}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:.0f}" height="{_HEIGHT}" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<rect width="{left + right:.0f}" height="{_HEIGHT}" rx="3" fill="{badge.color}"/>'
        f'<path d="M3 0h{left - 3:.1f}v{_HEIGHT}H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#2b2f36"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f"{_text(badge.label, 0, left)}{_text(badge.message, left, right)}</g></svg>\n"
    )


def _text(words: str, start: float, width: float) -> str:
    fit = f'textLength="{width - 2 * _PADDING:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{start + _PADDING:.1f}" y="14" {fit}>{escape(words)}</text>'


def _message(record: Record, summary: Summary) -> str:
    counts, total = summary.counts, len(summary.entries)
    survived = f"{counts[Verdict.CORROBORATED.value]}/{total} survived"
    if counts[Verdict.FALSIFIED.value]:
        survived = f"{counts[Verdict.FALSIFIED.value]} falsified, {survived}"
    elif counts[Verdict.ERROR.value]:
        survived = f"{counts[Verdict.ERROR.value]} errors, {survived}"
    if record.header.rehearsal:
        survived = f"rehearsal, {survived}"
    return survived if summary.trustworthy else f"broken record, {survived}"
