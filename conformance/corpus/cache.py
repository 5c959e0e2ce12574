"""What is made once and kept: a cache directory of the user, filled atomically."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from conformance.corpus.checkpoint import file_sha256
from conformance.reported import Reported

_RECORD = "provenance.json"


class ContentChanged(Reported):
    """Something downloaded, converted or generated that is not, byte for byte, what its goldens were made from."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(f"{what}: expected sha256 {expected}, found {found}")
        self.what = what
        self.expected = expected
        self.found = found


class CachedFile(msgspec.Struct, frozen=True):
    """A file of a cached entry."""

    name: str
    nbytes: int
    sha256: str


class Provenance(msgspec.Struct, frozen=True):
    """Where a cached entry came from, under which licence, and what it consists of."""

    origin: str
    licence: str
    files: tuple[CachedFile, ...]


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/falsify`, by default `~/.cache/falsify`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "falsify"


def cached(name: str, build: Callable[[Path], None], *, origin: str, licence: str = "Apache-2.0") -> Path:
    """The directory `name` in the cache; `build` fills it if it is not there yet, or not whole.

    It is built beside its place and renamed, under a lock, so that it is whole whenever it can be seen. Sizes
    are compared on every call; `verify` compares hashes.
    """
    place = cache_root() / name
    if _sizes_match(place):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_name(f".{place.name}.lock")):
        if not _sizes_match(place):
            _build(place, build, origin, licence)
    return place


def verify(directory: Path) -> list[str]:
    """Names of the files of a cached entry whose content is not what was built."""
    return [
        file.name
        for file in read_provenance(directory).files
        if not (directory / file.name).is_file() or file_sha256(directory / file.name) != file.sha256
    ]


def read_provenance(directory: Path) -> Provenance:
    """The record that lies in every cached entry."""
    return msgspec.json.decode((directory / _RECORD).read_bytes(), type=Provenance)


def _build(place: Path, build: Callable[[Path], None], origin: str, licence: str) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temporary:
        made = Path(temporary) / "entry"
        made.mkdir()
        build(made)
        files = tuple(
            CachedFile(str(path.relative_to(made)), path.stat().st_size, file_sha256(path))
            for path in sorted(made.rglob("*"))
            if path.is_file()
        )
        record = msgspec.json.encode(Provenance(origin, licence, files))
        (made / _RECORD).write_bytes(msgspec.json.format(record, indent=1) + b"\n")
        if place.exists():
            shutil.rmtree(place)
        made.rename(place)


def _sizes_match(place: Path) -> bool:
    try:
        return all((place / file.name).stat().st_size == file.nbytes for file in read_provenance(place).files)
    except (OSError, msgspec.DecodeError):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
