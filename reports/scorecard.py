"""Record → one self-contained HTML page: no network, no clock, the same bytes for the same record."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from conformance.catalogue import Catalogue
from conformance.comparison import unlike
from conformance.gate.decision import Decision
from conformance.machine import flattened, machine_hash
from conformance.observations import Measured, Observed, Sample
from conformance.record import Record, RowResult, counts
from conformance.verdicts import MEANING, Verdict
from reports import text
from reports.embedded import embedded, record_bytes
from reports.explain import Point, amount, brief, decisive, explain, points
from reports.extra import Extra
from reports.gate import paragraph
from reports.hexdump import Exhibit, hexdump
from reports.history import MAX_DOTS, glyph
from reports.limits import not_tested
from reports.plots import plot
from reports.summary import GLYPH, READING_ORDER, Entry, Summary, reasons, summarise, weights_tried

TEMPLATES = Path(__file__).with_name("templates")
MAX_PAGE_BYTES = 1_000_000
_LONGEST_VALUE = 500
_FOLDED_FROM = 3
_ASKED_FIRST = ("gpu", "driver", "cuda", "cpu", "system", "python", "torch")
_SPEAKING = {"gpu", "cpu", "system"}


class Detail(msgspec.Struct, frozen=True):
    """How much of a record a page shows.

    Characters a text; points and files a row; whether passed rows have plots and contents; bytes of a download.
    """

    characters: int
    points: int
    passed: bool
    download: int


_DETAILS = (
    Detail(characters=2_000, points=40, passed=True, download=16_384),
    Detail(characters=600, points=20, passed=True, download=2_048),
    Detail(characters=160, points=6, passed=True, download=0),
    Detail(characters=160, points=4, passed=False, download=0),
    Detail(characters=60, points=2, passed=False, download=0),
)


class Group(msgspec.Struct, frozen=True):
    """Rows that are read together."""

    key: str
    verdict: Verdict
    title: str
    entries: list[Entry]


class PageTooLarge(Exception):
    """A record that does not fit on a page even in its shortest form."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        super().__init__(f"the shortest scorecard of this record has {nbytes} bytes, more than {MAX_PAGE_BYTES}")


def render_scorecard(
    record: Record,
    catalogue: Catalogue,
    *,
    exhibits: Mapping[str, Exhibit] | None = None,
    extras: Sequence[Extra] = (),
    raw: bytes = b"",
    killers: Mapping[str, Sequence[str]] | None = None,
    thresholds_sha256: str = "",
    decision: Decision | None = None,
    history: Sequence[Record] = (),
    calibrated: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The scorecard as HTML, at most 1 MB: what does not fit is shortened, and says so.

    Args:
        record: what was observed and judged.
        catalogue: the rows it was judged against.
        exhibits: contents of evidence files by their path in the record; shown as hex and offered for download.
        extras: sections to place after the rows, in order.
        raw: the record's file as it is, where there is one; it lies inside the page, and the page names its hash.
        thresholds_sha256: hash of this harness's thresholds; a record that was judged by others is marked.
        killers: the planted faults that each check was seen to fail of, by row.
        decision: what a gate file made of the record; without one the page tells the trial's own exit code.
        history: earlier records, oldest first, for the dots of each row.
        calibrated: by row, a sentence a machine on its error rate and what it sees.

    Raises:
        PageTooLarge: even the shortest form is larger than 1 MB.
    """
    page, whole = "", raw or record_bytes(record)
    given: dict[str, Any] = {
        **_of_record(record, catalogue),
        "record_sha256": hashlib.sha256(whole).hexdigest(),
        "embedded": embedded(whole),
        "nbytes": len(whole),
        "killers": killers or {},
        "other_thresholds": thresholds_sha256 not in {"", record.header.thresholds_sha256},
        "other_catalogue": catalogue.sha256 != record.header.catalogue_sha256,
        "exhibits": exhibits or {},
        "extras": extras,
        "decision": decision,
        "paragraph": paragraph(decision) if decision else "",
        "past": _past(record, history),
        "calibrated": calibrated or {},
        "trials": [_trial(earlier, record) for earlier in history[-MAX_DOTS:]],
    }
    template = page_template("scorecard.html.jinja")
    for detail in _DETAILS:
        page = template.render(given, detail=detail)
        if len(page.encode()) <= MAX_PAGE_BYTES:
            return page
    raise PageTooLarge(len(page.encode()))


def _of_record(record: Record, catalogue: Catalogue) -> dict[str, Any]:
    """What the template asks of the record alone."""
    summary = summarise(record, catalogue)
    return {
        "command": shlex.join(record.header.command),
        "header": record.header,
        "footer": record.footer,
        "summary": summary,
        "sections": [(section, list(group)) for section, group in groupby(summary.entries, key=lambda e: e.section)],
        "groups": _groups(summary),
        "weights": weights_tried(summary),
        "environment": environment_table(record.header.environment),
        "fingerprint": machine_hash(record.header.environment),
        "fingerprint_line": fingerprint_line(record.header.environment),
        "not_tested": not_tested(record, summary),
    }


def _past(record: Record, history: Sequence[Record]) -> dict[str, list[RowResult | None]]:
    """How each row fared in earlier trials, oldest first; None where a trial did not have it."""
    trials = [{row.id: row for row in earlier.rows} for earlier in history[-MAX_DOTS:]]
    return {row.id: [trial.get(row.id) for trial in trials] for row in record.rows}


def _trial(earlier: Record, record: Record) -> dict[str, Any]:
    """An earlier trial in words, and whether its speed and memory compare with this record's."""
    header = earlier.header
    return {
        "id": header.trial_id,
        "started": header.started,
        "model": header.model.name,
        "revision": header.revision,
        "machine": machine_hash(header.environment),
        "unlike": list(unlike(header, record.header)),
        "counts": counts(earlier.rows),
    }


def _groups(summary: Summary) -> list[Group]:
    """Failures first, a failed rehearsal among them although its row counts as untested."""
    failed = summary.failed_rehearsals
    groups = [Group("rehearsal", Verdict.UNTESTED, "Failed in rehearsal", failed)] if failed else []
    for verdict in READING_ORDER:
        entries = [entry for entry in summary.having(verdict) if not entry.rehearsal_failed]
        groups += [Group(verdict.value.lower(), verdict, verdict.value.capitalize(), entries)] if entries else []
    return groups


def page_template(name: str) -> Template:
    """A template of a page, with what every page of ours may use; whatever it prints is escaped and visible."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.globals |= {
        "GLYPH": GLYPH,
        "MEANING": MEANING,
        "READING_ORDER": READING_ORDER,
        "Verdict": Verdict,
        "brief": brief,
        "decisive": decisive,
        "explain": explain,
        "points": points,
        "glyph": glyph,
        "glyph_words": "r and R are rows rehearsed on the CPU, survived and failed",
        "hexdump": hexdump,
        "in_unit": _in_unit,
        "reasons": reasons,
        "download": _download,
        "readable": _readable,
        "picture": _picture,
        "value_line": _value_line,
        "point_line": _point_line,
        "folded": _folded,
        "style": Markup(TEMPLATES.joinpath("scorecard.css").read_text(encoding="utf-8")),  # noqa: S704 our own file
        "script": Markup(TEMPLATES.joinpath("scorecard.js").read_text(encoding="utf-8")),  # noqa: S704 our own file
    }
    environment.filters |= {
        "clip": text.clip,
        "code": code,
        "duration": text.duration,
        "file_size": text.file_size,
        "moment": text.moment,
        "number": text.number,
        "readable_amounts": text.readable_amounts,
        "one_line": text.one_line,
        "plural": text.plural,
    }
    return environment


def _finalize(value: object) -> object:
    """Every string that a template prints passes here: nothing invisible reaches the page."""
    return text.visible(value) if type(value) is str else value


def code(words: str) -> Markup:
    """Escaped text in which the parts between backticks are code, as the specification writes them."""
    pieces = [escape(text.visible(piece)) for piece in words.split("`")]
    if len(pieces) % 2 == 0:
        return escape(text.visible(words))
    marked = [Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(pieces)]
    return Markup("").join(marked)


def environment_table(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment flattened to dotted names, sorted, long values clipped."""
    return [(name, text.clip(value, _LONGEST_VALUE)) for name, value in flattened(environment)]


def fingerprint_line(environment: Mapping[str, Any]) -> str:
    """The machine in one line: what a reader asks first, where the environment names it."""
    table = [(name, value) for name, value in environment_table(environment) if value not in {"", "null", "[]", "{}"}]
    found = [(key, value) for key in _ASKED_FIRST if (value := _named(table, key))]
    return " · ".join(text.one_line(value if key in _SPEAKING else f"{key} {value}", 60) for key, value in found)


def _named(table: Sequence[tuple[str, str]], key: str) -> str:
    """The value whose dotted name holds the key as a word; a name or model of it before its other properties."""
    holding = [
        (name, value) for name, value in table if {key, f"{key}s"} & {*name.lower().replace(".", "_").split("_")}
    ]
    best = (value for name, value in holding if name.rsplit(".", 1)[-1] in {key, "name", "model", "version"})
    return next(best, holding[0][1] if holding else "")


def _in_unit(value: float, observation: Observed | None) -> str:
    return amount(value, observation.unit if isinstance(observation, Sample | Measured) else "")


def _picture(point: Any, entry: Entry, detail: Detail) -> Markup:
    """The plot of a point; svg.py escapes every text that it prints."""
    if point.observation is None or (entry.result.verdict is Verdict.CORROBORATED and not detail.passed):
        return Markup("")
    return Markup(plot(point.observation, point.finding))  # noqa: S704


def _download(exhibit: Exhibit, detail: Detail) -> str:
    if len(exhibit.data) > detail.download:
        return ""
    return "data:application/octet-stream;base64," + base64.b64encode(exhibit.data).decode()


def _readable(media_type: str, exhibit: Exhibit) -> str:
    """The content of a text file; empty for bytes, which are shown as hex."""
    is_text = media_type.startswith("text/") or "json" in media_type
    return exhibit.data.decode(errors="replace") if is_text and not exhibit.marked else ""


def _value_line(entry: Entry) -> str:
    """What a closed row shows beside its name: the reason, or the decisive observation."""
    if entry.result.reason:
        return text.one_line(text.readable_amounts(entry.result.reason), 160)
    point = decisive(entry.result)
    if point is None:
        return ""
    if point.finding and point.finding.detail:
        return text.one_line(text.readable_amounts(point.finding.detail), 160)
    return brief(point.observation, 160) if point.observation else ""


def _point_line(point: Point) -> str:
    """What a closed observation shows beside its name."""
    words = point.finding.detail if point.finding else ""
    return text.one_line(text.readable_amounts(words), 160) or (brief(point.observation) if point.observation else "")


def _folded(point: Point, entry: Entry) -> bool:
    """Whether an observation is closed at first: one that agrees, among many."""
    agrees = point.finding is not None and point.verdict is Verdict.CORROBORATED
    return agrees and len(entry.result.findings) > _FOLDED_FROM
