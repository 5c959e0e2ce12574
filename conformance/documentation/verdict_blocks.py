"""Verdicts, exit codes and the record's lines as tables."""

from __future__ import annotations

import msgspec

from conformance import observations, record
from conformance.catalogue import Catalogue, load_catalogue
from conformance.documentation.markdown import code, table
from conformance.documentation.structures import fields_table, summary
from conformance.verdicts import EXIT_MEANING, MEANING

_LINES: tuple[type[msgspec.Struct], ...] = (record.Header, record.RowResult, record.Footer)
_PARTS: tuple[type[msgspec.Struct], ...] = (
    record.EngineIdentity,
    record.ModelIdentity,
    record.Finding,
    record.Evidence,
)


def verdicts() -> str:
    """Each verdict and what it means."""
    return table(["verdict", "meaning"], ([verdict.value, meaning] for verdict, meaning in MEANING.items()))


def exit_codes() -> str:
    """Each exit code and when it is given."""
    return table(["code", "when"], ([str(int(number)), meaning] for number, meaning in EXIT_MEANING.items()))


def unwritten_rows() -> str:
    """Which rows have no check yet, counted and named; from the catalogue."""
    catalogue = load_catalogue()
    missing = [row for row in catalogue.rows if not row.written]
    if not missing:
        return f"All {len(catalogue.rows)} rows have a check, {_on_gpu(catalogue)} of them need a GPU."
    named = [
        [section.title, ", ".join(code(row.id) for row in missing if row.section == section.key)]
        for section in catalogue.sections
        if any(row.section == section.key for row in missing)
    ]
    written = len(catalogue.rows) - len(missing)
    return (
        f"{written} of {len(catalogue.rows)} rows have a check, {_on_gpu(catalogue)} of them need a GPU. These have no "
        f"check yet; they are UNTESTED and keep the gate shut:\n\n{table(['section', 'rows without a check'], named)}"
    )


def _on_gpu(catalogue: Catalogue) -> int:
    return sum(row.written and row.needs_cuda for row in catalogue.rows)


def record_lines() -> str:
    """The three kinds of line, and the parts of them."""
    return "\n\n".join(_described(kind) for kind in (*_LINES, *_PARTS))


def observation_kinds() -> str:
    """Each kind of observation by its tag."""
    kinds = sorted(observations.Observed.__subclasses__(), key=lambda kind: str(kind.__struct_config__.tag))
    rows = [[code(str(kind.__struct_config__.tag)), summary(kind).split("\n\n", maxsplit=1)[0]] for kind in kinds]
    return table(["kind", "what it says"], rows)


def _described(kind: type[msgspec.Struct]) -> str:
    tag = kind.__struct_config__.tag
    title = f"{kind.__name__} (`line`: `{tag}`)" if tag else kind.__name__
    return f"### {title}\n\n{summary(kind)}\n\n{fields_table(kind)}"
