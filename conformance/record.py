"""The record of a trial: JSON Lines with a header, one line a row as it ends, and a footer.

Fail-closed: the header fixes the expected rows before the run; a missing footer means truncated; a row without
a line is UNTESTED("no record"); a row twice, an unknown row or an undecodable line is a `BrokenRecord`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from conformance.observations import Observation
from conformance.reported import Reported
from conformance.verdicts import ExitCode, Rehearsed, Verdict

SCHEMA_VERSION = "1.0"
RECORD_FILE = "record.jsonl"


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the run directory that a verdict rests on; `path` is relative to it."""

    path: str
    sha256: str
    nbytes: int
    media_type: str = "application/octet-stream"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the judge made of one observation: the verdict, the rule in words, limit, interval, detectable effect."""

    name: str
    verdict: Verdict
    rule: str
    detail: str = ""
    limit: str = ""
    interval: tuple[float, float] | None = None
    error_rate: float | None = None
    detectable: str = ""


class RowResult(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="line", tag="row"):
    """One row of the catalogue, tried or not. `reason` is never empty unless CORROBORATED.

    `began_s` is the host's monotonic clock, in seconds, so that the rows of all trials of one host can be laid over one
    another; `device` is the hash by which `environment.gpus` names the GPU that the row's processes saw.
    """

    id: str
    verdict: Verdict
    reason: str = ""
    rehearsed: Rehearsed | None = None
    observations: list[Observation] = []
    findings: list[Finding] = []
    evidence: list[Evidence] = []
    duration_s: float = 0.0
    began_s: float = 0.0
    device: str = ""
    seed: int = 0
    weights: str = ""
    reproduce: str = ""

    @property
    def violates(self) -> bool:
        """True where the criterion was violated, be it only by the CPU path of a rehearsal."""
        return self.verdict is Verdict.FALSIFIED or self.rehearsed is Rehearsed.FAILED


class EngineIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """The engine on trial, as its manifest and its driver name it."""

    name: str
    version: str = ""
    manifest: str = ""
    manifest_sha256: str = ""
    capabilities: list[str] = []
    precision: str = ""
    is_reference: bool = False


class ModelIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """The weights the rows were tried on: `kind` is fixture, random, checkpoint or geometry."""

    name: str
    kind: str
    sha256: str
    nbytes: int = 0
    goldens_sha256: str = ""


class Shard(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which part of a trial this is: number `index` of `of`; `selected` and the inputs' hash are the whole trial's."""

    index: int
    of: int
    selected: list[str]
    inputs_sha256: str


class MergedShard(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a part of a merged record comes from: the shard's record by its hash, and the machine it ran on."""

    index: int
    trial_id: str
    record_sha256: str
    started: str
    environment: dict[str, Any]


class Header(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="line", tag="header"):
    """Everything known before the first row runs, and the rows that must be in the record."""

    schema: str
    trial_id: str
    started: str
    engine: EngineIdentity
    model: ModelIdentity
    rows: list[str]
    selected: list[str]
    rehearsal: bool
    seed: int
    revision: str
    revision_dirty: bool
    catalogue_sha256: str
    thresholds_sha256: str
    environment: dict[str, Any]
    command: list[str]
    profile: str = "default"
    shard: Shard | None = None
    merged: list[MergedShard] = []


class Footer(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="line", tag="footer"):
    """Written last, whatever happened; `ended` is completed, interrupted or broken."""

    ended: str
    finished: str
    duration_s: float
    exit_code: ExitCode
    counts: dict[str, int]
    verdict: Verdict


Line = Header | RowResult | Footer


class SkimmedRow(msgspec.Struct, frozen=True, tag_field="line", tag="row"):
    """What a row's line says of its outcome, without what that rests on."""

    id: str
    verdict: Verdict
    reason: str = ""
    rehearsed: Rehearsed | None = None
    duration_s: float = 0.0


class SkimmedRecord(msgspec.Struct, frozen=True):
    """A whole trial as `Record` has it, with skimmed rows."""

    header: Header
    rows: list[SkimmedRow]
    footer: Footer | None


class _Rowlike(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def verdict(self) -> Verdict: ...


RowT = TypeVar("RowT", RowResult, SkimmedRow)
_WHOLE = msgspec.json.Decoder(Line)
_SKIMMED = msgspec.json.Decoder(Header | SkimmedRow | Footer)


class BrokenRecord(Reported):
    """A record that cannot be trusted; the message says which line and why."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        self.cause = cause
        super().__init__(f"{path}: {cause}")


class Record(msgspec.Struct, frozen=True):
    """A whole trial; `rows` has one entry per expected row, in the header's order. No footer: truncated."""

    header: Header
    rows: list[RowResult]
    footer: Footer | None

    @property
    def truncated(self) -> bool:
        """True when the harness was killed before it could write the footer."""
        return self.footer is None


def counts(rows: Iterable[_Rowlike]) -> dict[str, int]:
    """How many rows have each verdict; every verdict is present, zeros too."""
    tally = Counter(row.verdict for row in rows)
    return {verdict.value: tally[verdict] for verdict in Verdict}


def encode_line(line: Line) -> bytes:
    """One line of the record, newline included; lone surrogates, which JSON cannot carry, become question marks."""
    try:
        return msgspec.json.encode(line) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_printable(msgspec.to_builtins(line))) + b"\n"


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    return [_printable(entry) for entry in value] if isinstance(value, list | tuple) else value


def record_file(path: Path) -> Path:
    """The record's own path: a run directory stands for the record in it."""
    return path / RECORD_FILE if path.is_dir() else path


def write_record(record: Record, path: Path) -> None:
    """Write a whole record to a new file; FileExistsError if there is one."""
    lines: list[Line] = [record.header, *record.rows, *([record.footer] if record.footer else [])]
    with path.open("xb") as file:
        file.writelines(encode_line(line) for line in lines)


def read_record(path: Path) -> Record:
    """Read a record and fill in what is missing as UNTESTED("no record").

    Raises:
        BrokenRecord: no header, a duplicate, an unexpected row, an undecodable line, lines after the footer,
            or a footer that counts other rows.
    """
    return parse_record(_bytes_of(path), path)


def parse_record(raw: bytes, path: Path) -> Record:
    """A record from the bytes of its file; `path` is for messages only.

    Raises:
        BrokenRecord: as `read_record`.
    """
    return Record(*_parsed(path, _decode_lines(path, raw, _WHOLE), RowResult))


def skim_record(path: Path) -> SkimmedRecord:
    """Read what a record says of its rows, seven times as fast: what they rest on must be JSON, and is not looked at.

    Raises:
        BrokenRecord: as `read_record`, but for an observation or finding of a form that there is not.
    """
    return SkimmedRecord(*_parsed(path, _decode_lines(path, _bytes_of(path), _SKIMMED), SkimmedRow))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenRecord(path, error.strerror or str(error)) from error


def _parsed(path: Path, lines: Sequence[Any], kind: type[RowT]) -> tuple[Header, list[RowT], Footer | None]:
    if not lines or not isinstance(lines[0], Header):
        raise BrokenRecord(path, "line 1 is not a header")
    header = lines[0]
    if header.schema != SCHEMA_VERSION:
        raise BrokenRecord(path, f"schema {header.schema!r}, this reader knows {SCHEMA_VERSION!r}")
    footer = lines[-1] if isinstance(lines[-1], Footer) else None
    body = lines[1:-1] if footer else lines[1:]
    rows = _arrange(path, header, body, kind)
    if footer is not None and footer.counts != counts(rows):
        raise BrokenRecord(path, "the footer does not count what the rows say")
    return header, rows, footer


def _decode_lines(path: Path, raw: bytes, decoder: msgspec.json.Decoder[Any]) -> list[Any]:
    end = raw.rfind(b"\n") + 1
    try:
        lines: list[Any] = decoder.decode_lines(raw[:end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        lines = []
    if len(lines) != raw.count(b"\n"):  # an empty line, or one that is none
        lines = [
            _decode_line(path, number, piece, decoder) for number, piece in enumerate(raw[:end].split(b"\n")[:-1], 1)
        ]
    if len(raw) > end and lines and isinstance(lines[-1], Footer):
        raise BrokenRecord(path, "bytes after the footer")
    return lines


def _decode_line(path: Path, number: int, piece: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenRecord(path, f"line {number}: {error}") from error


def _arrange(path: Path, header: Header, body: Iterable[Any], kind: type[RowT]) -> list[RowT]:
    found: dict[str, RowT] = {}
    expected = set(header.rows)
    for line in body:
        if type(line) is not kind:
            raise BrokenRecord(path, f"a {type(line).__name__.lower()} line among the rows")
        name = line.id
        if name in found:
            raise BrokenRecord(path, f"{name} is recorded twice")
        if name not in expected:
            raise BrokenRecord(path, f"{name} is not an expected row")
        found[name] = line
    return [found.get(row) or kind(row, Verdict.UNTESTED, reason="no record") for row in header.rows]


def schema() -> Mapping[str, Any]:
    """JSON Schema (2020-12) of one line of the record."""
    return msgspec.json.schema(Line)
