"""The committed records as a table: what was tried where, and how it went."""

from __future__ import annotations

from pathlib import Path

from conformance.catalogue import load_catalogue
from conformance.documentation.evidence import committed
from conformance.documentation.markdown import table
from conformance.record import Record, read_record
from conformance.verdicts import Rehearsed, Verdict

RECORDS = {
    "h100": "the reference engine on one NVIDIA H100",
    "rehearsal": "the reference engine, rehearsed on a CPU",
    "smollm2": "the reference engine with SmolLM2-135M-Instruct, rehearsed on a CPU",
    "engines/transformers": "transformers, rehearsed on a CPU",
}


def committed_trials(root: Path) -> str:
    """One line a trial: rows by verdict, rehearsals, and the time it took, all from its record."""
    head = ["trial", "survived", "falsified", "warnings", "undecided", "untested", "survived a rehearsal", "took"]
    lines = []
    for name, what in RECORDS.items():
        folder = Path("docs") / "results" / name
        record = read_record(root / folder / "record.jsonl")
        counts = [sum(row.verdict is verdict for row in record.rows) for verdict in _COLUMNS]
        rehearsed = sum(row.rehearsed is Rehearsed.SURVIVED for row in record.rows)
        shown = str(rehearsed) if record.header.rehearsal else ""
        lines.append([f"[{what}]({_page(root, folder)})", *map(str, counts), shown, _took(record)])
    return table(head, lines)


def proven_checks(root: Path) -> str:
    """How many checks the committed kill matrix proves able to fail; that there is none, where there is none."""
    severity = committed(root).severity
    if severity is None:
        return "No kill matrix is committed with this version."
    proven, seen = len(severity.killers()), sum(fault.specific for fault in severity.faults)
    return (
        f"The committed kill matrix proves {proven} of {len(load_catalogue().rows)} checks able to fail, by "
        f"{len(severity.faults)} planted faults of which {seen} were seen for what they are."
    )


_COLUMNS = (
    Verdict.CORROBORATED,
    Verdict.FALSIFIED,
    Verdict.WARNING,
    Verdict.INCONCLUSIVE,
    Verdict.UNTESTED,
)


def _page(root: Path, folder: Path) -> str:
    page = folder / "README.md"
    return (page if (root / page).is_file() else folder.parent / "README.md").as_posix()


def _took(record: Record) -> str:
    return "not finished" if record.footer is None else f"{record.footer.duration_s:.0f} s"
