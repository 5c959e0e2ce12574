"""Files as untrusted input: a SafeTensors file opened once and read in bounded steps, and small JSON files.

Bytes are read with `preadv`, never through a mapping: a file cut short after it was opened gives an error
instead of SIGBUS, and what was read does not change when the file does.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any, Self

from reference_engine.errors import (
    ClosedHandle,
    EngineError,
    FileNotFound,
    InvalidArgument,
    InvalidFile,
    InvalidModel,
    PermissionDenied,
    ReadFailed,
)
from reference_engine.header import LENGTH_BYTES, Header, TensorEntry, header_length, parse_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

READ_BYTES = 1 << 30
MAX_JSON_BYTES = 64 << 20


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises:
        FileNotFound, PermissionDenied, ReadFailed: As the operating system says; also for a directory,
            a pipe or a device, which would block or never end.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise FileNotFound(name)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _open_error(name, error) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise ReadFailed(name, "it is not a regular file")


def _open_error(name: str, error: OSError) -> EngineError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return FileNotFound(name)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionDenied(name)
    return ReadFailed(name, error.strerror or str(error))


def read_small(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Read a whole small file.

    Raises:
        InvalidModel: The file is larger than `limit` bytes.
        FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            raw = file.read(limit + 1)
        except OSError as error:
            raise ReadFailed(str(path), error.strerror or str(error)) from None
    if len(raw) > limit:
        raise InvalidModel(str(path), f"it is larger than {limit} bytes")
    return raw


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of the checkpoint.

    Raises:
        InvalidModel: The file is too large, not JSON, or not an object.
        FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
    """
    try:
        value = json.loads(read_small(path).decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise InvalidModel(str(path), "its JSON is nested too deeply") from None
    except ValueError as error:
        raise InvalidModel(str(path), f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidModel(str(path), "it does not hold a JSON object")
    return value


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


class SafeTensorsFile:
    """An open SafeTensors file: a checked header, and tensor bytes on demand. Closes as a context manager."""

    def __init__(self, path: str | Path) -> None:
        """Open `path` and check its header.

        Raises:
            InvalidFile: Any rule of the format is broken.
            FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
        """
        self.path = os.fspath(path)
        self._descriptor: int | None = open_regular(path)
        try:
            self._header = self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> Header:
        size = os.fstat(self.descriptor).st_size
        prefix = bytearray(min(size, LENGTH_BYTES))
        self.read_into(0, memoryview(prefix))
        raw = bytearray(header_length(self.path, prefix, size))
        self.read_into(LENGTH_BYTES, memoryview(raw))
        return parse_header(self.path, raw, size)

    @property
    def descriptor(self) -> int:
        """The open file descriptor.

        Raises:
            ClosedHandle: The file was closed.
        """
        if self._descriptor is None:
            raise ClosedHandle(f"file {self.path}")
        return self._descriptor

    @property
    def tensors(self) -> Mapping[str, TensorEntry]:
        """Entries by name, in the header's order."""
        return self._header.tensors

    @property
    def metadata(self) -> dict[str, str]:
        """`__metadata__` exactly; empty if absent."""
        return self._header.metadata

    @property
    def data_start(self) -> int:
        """File offset of the data buffer."""
        return self._header.data_start

    def read(self, name: str) -> bytearray:
        """Bytes of one tensor as they are in the file.

        Raises:
            InvalidArgument: The file has no such tensor.
            InvalidFile: The file was cut short after it was opened.
        """
        entry = self.tensors.get(name)
        if entry is None:
            raise InvalidArgument("tensor", f"{name!r} is not in {self.path}")
        data = bytearray(entry.nbytes)
        self.read_into(self.data_start + entry.begin, memoryview(data))
        return data

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` (bytes) from file offset `offset`; safe from several threads at once.

        Raises:
            InvalidFile: The file ends before `target` is full.
            ReadFailed: The operating system reports an error.
        """
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self.descriptor, [target[done : done + READ_BYTES]], offset + done)
            except OSError as error:
                raise ReadFailed(self.path, error.strerror or str(error)) from None
            if count == 0:
                raise InvalidFile(self.path, f"it was cut short after it was opened, at byte {offset + done}")
            done += count

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
