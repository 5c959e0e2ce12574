"""Record → Markdown for a pipeline's step summary: the verdict, the counts, what failed and how to see it again.

Foreign text stands only inside code spans and fences longer than any run of backticks in it, so that it can
neither format nor mention nor link.
"""

from __future__ import annotations

import re

from conformance.catalogue import Catalogue
from conformance.gate.decision import Decision
from conformance.record import Record
from conformance.verdicts import Verdict
from reports.explain import addition, decisive
from reports.gate import paragraph
from reports.summary import GLYPH, READING_ORDER, Entry, Summary, reasons, summarise
from reports.text import clip, duration, one_line, visible

_SHOWN_ROWS = 30
_SHOWN_REASONS = 12


def render_markdown(record: Record, catalogue: Catalogue, decision: Decision | None = None) -> str:
    """The record as GitHub-flavoured Markdown; with a gate file's decision in place of the trial's own."""
    summary = summarise(record, catalogue)
    gate = code_block(paragraph(decision)) if decision else f"**Gate: {summary.gate}**"
    parts = [f"## {summary.headline}", gate]
    parts += ["\n".join(f"- {'**' if p.grave else ''}{p.text}{'**' if p.grave else ''}" for p in summary.problems)]
    parts += [_subject(record), _counts(summary)]
    bad = [*summary.having(Verdict.FALSIFIED), *summary.having(Verdict.ERROR), *summary.failed_rehearsals]
    parts += [_failure(entry) for entry in bad[:_SHOWN_ROWS]]
    parts += [f"… and {len(bad) - _SHOWN_ROWS} more; the scorecard has them all."] if len(bad) > _SHOWN_ROWS else []
    parts += [_undecided(summary, verdict) for verdict in (Verdict.INCONCLUSIVE, Verdict.WARNING, Verdict.UNTESTED)]
    return "\n\n".join(part for part in parts if part) + "\n"


def code_span(text: str, limit: int = 200) -> str:
    """Foreign text as a code span that may stand in a table cell."""
    shown = one_line(text, limit).replace("|", "\u2223") or " "
    fence = "`" * (1 + _longest_run(shown))
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def code_block(text: str, limit: int = 2_000) -> str:
    """Foreign text as a fenced block."""
    shown = clip(visible(text), limit)
    fence = "`" * max(3, 1 + _longest_run(shown))
    return f"{fence}text\n{shown}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _subject(record: Record) -> str:
    header = record.header
    engine = code_span(f"{header.engine.name} {header.engine.version}".strip())
    took = f", in {duration(record.footer.duration_s)}" if record.footer else ""
    thresholds, catalogue = (code_span(sha256[:12]) for sha256 in (header.thresholds_sha256, header.catalogue_sha256))
    return (
        f"Engine {engine} on {code_span(header.model.name)} ({code_span(header.model.kind)}){took}. "
        f"Thresholds {thresholds}, catalogue {catalogue}, seed {header.seed}."
    )


def _counts(summary: Summary) -> str:
    names = " | ".join(f"{GLYPH[verdict]} {verdict.value.lower()}" for verdict in READING_ORDER)
    numbers = " | ".join(str(summary.counts[verdict.value]) for verdict in READING_ORDER)
    return f"| {names} |\n|{'---:|' * len(READING_ORDER)}\n| {numbers} |"


def _failure(entry: Entry) -> str:
    row, result = entry.row, entry.result
    kind = "failed in rehearsal" if entry.rehearsal_failed else result.verdict.value.lower()
    lines = [
        f"### {GLYPH[result.verdict]} {code_span(row.id)} {kind}",
        f"{code_span(row.test)} · {code_span(row.criterion)}",
    ]
    lines += [code_block(result.reason)] if result.reason else []
    point = decisive(result)
    if point and point.observation and (more := addition(point.observation, result.reason)):
        lines.append(f"Observed: {code_span(more, 320)}")
    lines += [f"Reproduce:\n\n{code_block(result.reproduce)}"] if result.reproduce else []
    return "\n\n".join(lines)


def _undecided(summary: Summary, verdict: Verdict) -> str:
    entries = [entry for entry in summary.having(verdict) if not entry.rehearsal_failed]
    if not entries:
        return ""
    ranked = reasons(entries)
    lines = [f"- {count} \N{MULTIPLICATION SIGN} {code_span(reason)}" for reason, count in ranked[:_SHOWN_REASONS]]
    lines += [f"- and {len(ranked) - _SHOWN_REASONS} other reasons"] if len(ranked) > _SHOWN_REASONS else []
    title = f"{GLYPH[verdict]} {len(entries)} {verdict.value.lower()}"
    return f"<details><summary>{title}</summary>\n\n" + "\n".join(lines) + "\n\n</details>"
