"""What was tried, kept as it ends: one file a trial, so that a long matrix can be cut off, go on, and be joined.

A trial counts for the sources it was made with. Its `source` is a hash over what the fault ran in: the project without
its other faults and its reports, and the fault's own code; what a fault expects and may change is judged anew.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from conformance.faults.planting import Fault
from conformance.faults.problems import BrokenLedger
from conformance.faults.trying import Tried
from conformance.revision import SUFFIXES

HEALTHY = "healthy"
_ROOT = Path(__file__).resolve().parent.parent.parent
_GROUND = ("conformance", "reference_engine", "checks")
_NOT_GROUND = ("conformance/faults/", "conformance/documentation/", "conformance/cli")
_TRYING = tuple(f"conformance/faults/{name}.py" for name in ("planting", "trying", "pool", "__main__"))
_DECLARING = {"fault", "source_fault"}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: of which fault (`healthy` is none), on which machine, of which sources, and what it showed."""

    fault: str
    machine: str
    device: str
    revision: str
    source: str
    ground: str
    tried: Tried


class Ledger:
    """The trials in a directory, in the order they ended."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entries = list(_read(directory)) if directory.exists() else []

    def add(self, entry: Entry) -> None:
        """Keep a trial; its file is whole whenever it can be seen."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{len(self.entries):05d}-{entry.machine}-{entry.fault}.json"
        write_whole(path, msgspec.json.encode(entry))
        self.entries.append(entry)

    def of(self, fault: str, machine: str, source: str) -> list[Tried]:
        """The trials of a fault with these sources."""
        return [
            entry.tried
            for entry in self.entries
            if (entry.fault, entry.machine, entry.source) == (fault, machine, source)
        ]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is never seen in part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)


def rows_in(trials: Iterable[Tried]) -> set[str]:
    """Ids of the rows that these trials decided."""
    return {row.id for tried in trials for row in tried.rows}


@functools.cache
def ground_sha256() -> str:
    """One hash over what every fault runs in: engine, harness and checks, without the faults themselves."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _GROUND for path in (_ROOT / package).rglob("*")):
        name = path.relative_to(_ROOT).as_posix()
        if path.suffix in SUFFIXES and (name in _TRYING or not name.startswith(_NOT_GROUND)):
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def source_of(planted: Fault | None) -> str:
    """The hash of a trial's sources; None is the healthy engine."""
    if planted is None:
        return ground_sha256()
    function = planted.plant or planted.edit
    assert function is not None
    own = _own_code(Path(function.__code__.co_filename), function.__name__)
    shared = Path(__file__).with_name("layers.py").read_bytes()
    settings = f"{planted.crash} {planted.early} {planted.call_s}".encode()
    return hashlib.sha256(b"\0".join([ground_sha256().encode(), own.encode(), shared, settings])).hexdigest()


def _own_code(path: Path, name: str) -> str:
    """A module without the faults it declares, but for one of them."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    nodes = [node for node in ast.parse(text).body if not _declares(node) or getattr(node, "name", "") == name]
    return "\n".join(line for node in nodes for line in lines[node.lineno - 1 : node.end_lineno])


def _declares(node: ast.stmt) -> bool:
    called = (each.func for each in getattr(node, "decorator_list", []) if isinstance(each, ast.Call))
    return any(isinstance(each, ast.Name) and each.id in _DECLARING for each in called)


def _read(directory: Path) -> Iterator[Entry]:
    for path in sorted(directory.glob("[0-9]*.json")):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=Entry)
        except msgspec.MsgspecError as error:
            raise BrokenLedger(path, str(error)) from error
