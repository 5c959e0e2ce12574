"""Directories as few files of bounded size, NAME.tar.gz.000 and so on, for a way back that takes no more."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

PART_BYTES = 15 << 20


class TooLarge(Exception):
    """A directory does not fit into as many parts as may come back."""

    def __init__(self, name: str, nbytes: int, most: int) -> None:
        self.name, self.nbytes, self.most = name, nbytes, most
        super().__init__(f"{name}: {nbytes} bytes are more than {most} parts of {PART_BYTES} bytes")


def pack(directory: Path, target: Path, *, most: int = 4) -> list[Path]:
    """Write a directory as parts beside `target`, in the place of those that were there; nothing where it is empty.

    Raises:
        TooLarge: it takes more than `most` parts; what was there stays.
    """
    content = _packed(directory)
    parts = [content[begin : begin + PART_BYTES] for begin in range(0, len(content), PART_BYTES)]
    if len(parts) > most:
        raise TooLarge(target.name, len(content), most)
    written = []
    for number, part in enumerate(parts):
        path = target.with_name(f"{target.name}.tar.gz.{number:03d}")
        beside = path.with_name(f".{path.name}")
        beside.write_bytes(part)
        written.append(beside.rename(path))
    for path in parts_of(target):
        if path not in written:
            path.unlink()
    return written


def unpack(target: Path, directory: Path) -> bool:
    """Put what `pack` made of a directory into this one; False where there are no parts.

    Raises:
        tarfile.TarError, EOFError, OSError: a part is missing or broken.
    """
    parts = parts_of(target)
    if not parts:
        return False
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts)), mode="r:gz") as archive:
        archive.extractall(directory, filter="data")
    return True


def parts_of(target: Path) -> Sequence[Path]:
    """The parts that lie beside this name, in order."""
    return sorted(target.parent.glob(f"{target.name}.tar.gz.[0-9][0-9][0-9]"))


def _packed(directory: Path) -> bytes:
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return b""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=6) as archive:
        for path in files:
            archive.add(path, path.relative_to(directory).as_posix())
    return made.getvalue()
