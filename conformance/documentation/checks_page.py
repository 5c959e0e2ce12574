"""`docs/checks.md`: all rows of the catalogue in tables: observation, rule, limit and smallest effect that is seen."""

from __future__ import annotations

from pathlib import PurePosixPath

from conformance.catalogue import Catalogue, Row, Section
from conformance.documentation.evidence import Committed
from conformance.documentation.markdown import code, table

_INTRODUCTION = """# The hundred checks

Generated from `conformance/catalogue.toml`, `conformance/thresholds.toml` and the committed
[trial on an H100](results/h100/README.md) by `python -m conformance.documentation`; a test compares. Each row has a
page of its own, with the limits' reasons and how to reproduce it. [verdicts.md](verdicts.md) says what follows from an
observation, [statistics.md](statistics.md) how samples decide. An observation that is *equal to the witness* has no
limit: one that differs is a failure, and there is no chance in it.
"""


def page_of(row: Row) -> PurePosixPath:
    """A row's own page, below `docs/`."""
    return PurePosixPath("checks") / f"{row.id.lower()}.md"


def checks_page(catalogue: Catalogue, evidence: Committed) -> str:
    """The whole page."""
    parts = [_INTRODUCTION.rstrip(), _overview(catalogue)]
    for section in catalogue.sections:
        rows = [row for row in catalogue.rows if row.section == section.key]
        lines = [line for row in rows for line in _lines(row, evidence)]
        head = ["row", "test", "observation", "rule", "limit", "smallest effect seen"]
        parts += [f"## {section.numeral}. {section.title}", table(head, lines)]
    return "\n\n".join(parts) + "\n"


def _overview(catalogue: Catalogue) -> str:
    lines = [_counted(section, catalogue) for section in catalogue.sections]
    return table(["section", "`--section`", "rows", "written", "need a GPU", "run alone"], lines)


def _counted(section: Section, catalogue: Catalogue) -> list[str]:
    rows = [row for row in catalogue.rows if row.section == section.key]
    title = f"{section.numeral}. {section.title}"
    flags = ([row.written for row in rows], [row.needs_cuda for row in rows], [row.alone for row in rows])
    return [title, code(section.key), str(len(rows)), *(str(sum(flag)) for flag in flags)]


def _lines(row: Row, evidence: Committed) -> list[list[str]]:
    told = {one.name: one for one in evidence.told(row.id)}
    lines = []
    for place, name in enumerate((*row.observes, *row.observes_on_gpu)):
        first = [f"[{row.id}]({page_of(row)})", row.test] if place == 0 else ["", ""]
        one = told.get(name)
        rest = [one.rule, one.limit, one.detectable] if one else ["not in the committed trial", "", ""]
        lines.append([*first, code(name), *rest])
    return lines or [[f"[{row.id}]({page_of(row)})", row.test, "**not written yet: UNTESTED**", "", "", ""]]
