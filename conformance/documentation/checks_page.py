"""`docs/checks.md`: every row of the catalogue, what is observed, and the numbers that decide."""

from __future__ import annotations

import msgspec

from conformance.catalogue import Catalogue, Row, Section
from conformance.documentation.markdown import code, table
from conformance.thresholds import Limit, Thresholds

_INTRODUCTION = """# The hundred checks

Generated from `conformance/catalogue.toml` and `conformance/thresholds.toml` by
`python -m conformance.documentation`; a test compares. Test and criterion are the specification's own words.
[verdicts.md](verdicts.md) says what follows from an observation, [statistics.md](statistics.md) how samples decide.
An observation without a limit is compared exactly with what a witness says, or is decided by its own kind's rule.
"""
_SHOWN = {"reason", "relation", "limit", "unit"}


def checks_page(catalogue: Catalogue, thresholds: Thresholds) -> str:
    """The whole page."""
    parts = [_INTRODUCTION.rstrip(), _overview(catalogue)]
    for section in catalogue.sections:
        rows = [row for row in catalogue.rows if row.section == section.key]
        parts.append(f"## {section.numeral}. {section.title}")
        parts += [_row(row, thresholds.rows.get(row.id, {})) for row in rows]
    return "\n\n".join(parts) + "\n"


def _overview(catalogue: Catalogue) -> str:
    lines = [_counted(section, catalogue) for section in catalogue.sections]
    return table(["section", "`--section`", "rows", "written", "need a GPU", "run alone"], lines)


def _counted(section: Section, catalogue: Catalogue) -> list[str]:
    rows = [row for row in catalogue.rows if row.section == section.key]
    title = f"{section.numeral}. {section.title}"
    flags = ([row.written for row in rows], [row.needs_cuda for row in rows], [row.alone for row in rows])
    return [title, code(section.key), str(len(rows)), *(str(sum(flag)) for flag in flags)]


def _row(row: Row, limits: dict[str, Limit]) -> str:
    parts = [f"### {row.id}", f"{row.test}. {row.criterion}.", _facts(row)]
    if row.why:
        parts.append(f"Why so: {row.why}")
    if row.written:
        parts.append(_observed(row))
    if limits:
        parts.append(table(["observation", "limit", "further numbers", "reason"], _limit_lines(limits)))
    return "\n\n".join(parts)


def _facts(row: Row) -> str:
    gpu = "needs a GPU" if row.needs_cuda else "needs no GPU"
    alone = "; runs alone, after everything else" if row.alone else ""
    written = f"check {code(row.function)}" if row.written else "**not written yet: UNTESTED**"
    softer = "a failure is a WARNING" if row.severity == "WARNING" else "a failure is FALSIFIED"
    return f"{written}; {gpu}{alone}; {softer}."


def _observed(row: Row) -> str:
    names = ", ".join(code(name) for name in row.observes)
    if not row.observes_on_gpu:
        return f"Observed: {names}."
    return f"Observed: {names}; on a GPU also {', '.join(code(name) for name in row.observes_on_gpu)}."


def _limit_lines(limits: dict[str, Limit]) -> list[list[str]]:
    return [[code(name), _stated(limit), _further(limit), limit.reason] for name, limit in sorted(limits.items())]


def _stated(limit: Limit) -> str:
    return "" if limit.limit is None else f"{limit.relation} {limit.limit:.10g} {limit.unit}".strip()


def _further(limit: Limit) -> str:
    fields = msgspec.structs.fields(Limit)
    given = {field.name: getattr(limit, field.name) for field in fields if field.name not in _SHOWN}
    defaults = {field.name: field.default for field in fields}
    return ", ".join(f"{name} {_plain(value)}" for name, value in given.items() if value != defaults[name])


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(str(item) for item in value)
    return f"{value:.10g}" if isinstance(value, int | float) else str(value)
