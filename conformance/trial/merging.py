"""Shards of one trial → one record; fail-closed: what is missing, cut, doubled or different is named and ends it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from conformance.record import (
    BrokenRecord,
    Evidence,
    Header,
    MergedShard,
    Record,
    Shard,
    read_record,
    record_file,
)
from conformance.trial.inputs import comparable
from conformance.trial.outcome import NOT_SELECTED, exit_code
from conformance.trial.recorder import Listener, Recorder, untested
from conformance.trial.sharding import NotAShard, Part

_SAME = (
    "engine", "model", "rows", "rehearsal", "seed", "revision", "revision_dirty", "catalogue_sha256",
    "thresholds_sha256", "profile",
)  # fmt: skip
_SHOWN = 120


class BrokenShard(Exception):
    """A shard that cannot be part of the merged record; the message names it and says why."""

    def __init__(self, shard: str, cause: str) -> None:
        self.shard, self.cause = shard, cause
        super().__init__(f"shard {shard}: {cause}")


class ShardRecord(msgspec.Struct, frozen=True):
    """One shard as it lies on disk."""

    directory: Path
    record: Record
    sha256: str

    @property
    def header(self) -> Header:
        """The shard's header."""
        return self.record.header

    @property
    def shard(self) -> Shard:
        """Which part it is."""
        if self.header.shard is None:
            raise BrokenShard(str(self.directory), "a record of a whole trial, made without --shard")
        return self.header.shard

    @property
    def name(self) -> str:
        """As an error names it: `2/4 (DIRECTORY)`."""
        return f"{self.shard.index}/{self.shard.of} ({self.directory})"


def read_shards(paths: Sequence[Path]) -> list[ShardRecord]:
    """Read and check the shards of one trial, in order.

    Args:
        paths: Run directories, or their records.

    Raises:
        BrokenShard: one is missing, cut short, there twice, of another trial, or contradicts itself.
    """
    shards = [_read(path) for path in paths]
    if not shards:
        raise BrokenShard("1", "missing: no shard was given")
    for shard in shards:
        _check_alone(shard)
    _check_complete(shards)
    for shard in shards[1:]:
        _check_same(shards[0], shard)
    for shard in shards:
        for item in _evidence(shard):
            _check_evidence(shard, item, shard.directory)
    return sorted(shards, key=lambda each: each.shard.index)


def merge(shards: Sequence[ShardRecord], directory: Path, listener: Listener, command: Sequence[str]) -> Record:
    """Write the merged record with all evidence into a new run directory.

    Raises:
        BrokenShard: evidence changed since it was read.
        OSError: the directory cannot be written.
    """
    for shard in shards:
        for item in _evidence(shard):
            target = directory / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shard.directory / item.path, target)
            _check_evidence(shard, item, directory)
    results = {row.id: row for shard in shards for row in shard.record.rows if row.id in shard.header.selected}
    with Recorder(directory, _merged_header(shards, directory, command), listener) as recorder:
        for row_id in recorder.header.selected:
            recorder.record(results[row_id])
        spent = sum(shard.record.footer.duration_s for shard in shards if shard.record.footer)
        return recorder.finish("completed", lambda row_id: untested(row_id, NOT_SELECTED), duration_s=spent)


def _read(path: Path) -> ShardRecord:
    file = record_file(path)
    try:
        record = read_record(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except (BrokenRecord, OSError) as error:
        raise BrokenShard(str(path), str(error)) from error
    return ShardRecord(file.parent, record, digest)


def _check_alone(shard: ShardRecord) -> None:
    """The shard is whole and says one thing."""
    part, header, footer = shard.shard, shard.header, shard.record.footer
    if footer is None:
        raise BrokenShard(shard.name, "truncated: the harness was killed before it could finish")
    if footer.ended != "completed":
        raise BrokenShard(shard.name, f"did not complete: it was {footer.ended}")
    try:
        mine = Part(part.index, part.of).rows(part.selected)
    except NotAShard as error:
        raise BrokenShard(shard.name, "there is no such part") from error
    if not 1 <= part.index <= part.of or header.selected != mine:
        raise BrokenShard(shard.name, "does not hold the rows of this part")
    for row in shard.record.rows:
        if (row.reason == NOT_SELECTED) is (row.id in mine):
            raise BrokenShard(shard.name, f"{row.id} is {'not tried' if row.id in mine else 'not of this part'}")
        if row.reason == "no record":
            raise BrokenShard(shard.name, f"truncated: {row.id} has no line")
    if footer.exit_code is not exit_code(shard.record.rows, rehearsal=header.rehearsal, ended=footer.ended):
        raise BrokenShard(shard.name, "its exit code is not what its rows amount to")


def _check_complete(shards: Sequence[ShardRecord]) -> None:
    first = shards[0]
    seen: dict[int, ShardRecord] = {}
    for shard in shards:
        if shard.shard.of != first.shard.of:
            raise BrokenShard(shard.name, f"of another division than {first.name}")
        if shard.shard.index in seen:
            raise BrokenShard(shard.name, f"duplicated: {seen[shard.shard.index].directory} is the same part")
        seen[shard.shard.index] = shard
    missing = [str(number) for number in range(1, first.shard.of + 1) if number not in seen]
    if missing:
        raise BrokenShard(", ".join(f"{number}/{first.shard.of}" for number in missing), "missing")


def _check_same(first: ShardRecord, other: ShardRecord) -> None:
    for field, here, there in _differences(first, other):
        raise BrokenShard(other.name, f"{field} differs from {first.name}: {_show(there)}, there {_show(here)}")


def _differences(first: ShardRecord, other: ShardRecord) -> Iterator[tuple[str, Any, Any]]:
    for field in _SAME:
        here, there = getattr(first.header, field), getattr(other.header, field)
        if here != there:
            yield field, here, there
    if first.shard.selected != other.shard.selected:
        yield "the whole trial's selection", first.shard.selected, other.shard.selected
    machine, its = comparable(first.header.environment), comparable(other.header.environment)
    for key in machine:
        if machine[key] != its[key]:
            yield f"environment.{key}", machine[key], its[key]
    if first.shard.inputs_sha256 != other.shard.inputs_sha256:
        yield "what was tried (inputs)", first.shard.inputs_sha256, other.shard.inputs_sha256


def _show(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _merged_header(shards: Sequence[ShardRecord], directory: Path, command: Sequence[str]) -> Header:
    first = shards[0].header
    merged = [
        MergedShard(each.shard.index, each.header.trial_id, each.sha256, each.header.started, each.header.environment)
        for each in shards
    ]
    return msgspec.structs.replace(
        first,
        trial_id=directory.name,
        started=min(each.header.started for each in shards),
        selected=list(shards[0].shard.selected),
        command=list(command),
        shard=None,
        merged=merged,
    )


def _evidence(shard: ShardRecord) -> Iterator[Evidence]:
    return (item for row in shard.record.rows for item in row.evidence)


def _check_evidence(shard: ShardRecord, item: Evidence, directory: Path) -> None:
    """The file must still be what the record says and lie where evidence lies."""
    path, parts = directory / item.path, PurePosixPath(item.path).parts
    if parts[:1] != ("evidence",) or ".." in parts or not path.resolve().is_relative_to(directory.resolve()):
        raise BrokenShard(shard.name, f"evidence outside its run directory: {_show(item.path)}")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BrokenShard(shard.name, f"evidence {item.path}: {error.strerror}") from error
    if found != item.sha256:
        raise BrokenShard(shard.name, f"evidence {item.path} is not what the record says")
