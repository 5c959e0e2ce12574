"""Prints what a gate reads: `python -m conformance.done rows|rate|markers|examples|entries ARGUMENT…`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from conformance.done.records import rate, rows_not_passed
from conformance.done.sources import entries, gpu_examples, markers
from conformance.record import Record, read_record


def _rows(path: str, *rows: str) -> Iterable[str]:
    record = _shown_on_a_gpu(path)
    left = rows_not_passed(record, rows)
    yield f"rows not passed: {len(left)} ({', '.join(left) or 'none'}); {_told(path, record)}"


def _rate(path: str, row: str) -> Iterable[str]:
    record = _shown_on_a_gpu(path)
    found = rate(record, row)
    told = f"no CORROBORATED sample of {row}" if found is None else f"{found:.6g} tok/s"
    yield f"rate: {told}; {_told(path, record)}"


def _shown_on_a_gpu(path: str) -> Record:
    record = read_record(Path(path))
    if record.header.rehearsal or record.footer is None:
        raise SystemExit(f"{path} is a rehearsal, or was not finished: it shows nothing about a GPU")
    return record


def _told(path: str, record: Record) -> str:
    return f"{path} of {record.header.started[:10]}, {record.header.revision}"


def _entries(path: str) -> Iterable[str]:
    project = tomllib.loads((Path(path).parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return entries(Path(path).read_text(encoding="utf-8"), str(project["version"]))


def _markers(root: str) -> Iterable[str]:
    return markers(Path(root))


def _examples(*pages: str) -> Iterable[str]:
    return gpu_examples([Path(page) for page in pages])


COMMANDS: dict[str, Callable[..., Iterable[str]]] = {
    "rows": _rows,
    "rate": _rate,
    "markers": _markers,
    "examples": _examples,
    "entries": _entries,
}


def main(arguments: list[str]) -> None:
    """Print the lines of one command."""
    for line in COMMANDS[arguments[0]](*arguments[1:]):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
