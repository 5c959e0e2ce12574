"""The rows of the specification with the place that judges each, for the traceability page."""

from __future__ import annotations

from pathlib import Path

from conformance.catalogue import load_catalogue
from conformance.documentation.check_pages import check_of
from conformance.documentation.checks_page import page_of
from conformance.documentation.markdown import table


def traced_rows(root: Path) -> str:
    """Each row with its page and the file of its check."""
    lines = []
    for row in load_catalogue().rows:
        file = check_of(row, root)
        judged = f"**judged**: [{file.removeprefix('checks/')}](../{file})" if row.written else "not written: UNTESTED"
        lines.append([f"[{row.id}]({page_of(row)})", row.test, row.criterion, judged])
    return table(["row", "test", "criterion", "what became of it"], lines)
