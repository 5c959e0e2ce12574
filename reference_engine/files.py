"""Files as untrusted input: a file of tensors opened once and read in bounded steps, and small JSON files.

Bytes are read with `preadv`, never through a mapping: a file cut short after it was opened gives an error
instead of SIGBUS, and what was read does not change when the file does.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

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

READ_BYTES = 1 << 30
CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
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
    return parse_json(str(path), read_small(path))


def parse_json(path: str, raw: bytes) -> dict[str, Any]:
    """The JSON object that `raw` spells.

    Args:
        path: Named in errors.
        raw: UTF-8.

    Raises:
        InvalidModel: It is not JSON, or not an object.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise InvalidModel(path, "its JSON is nested too deeply") from None
    except ValueError as error:
        raise InvalidModel(path, f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidModel(path, "it does not hold a JSON object")
    return value


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


class SideFiles:
    """The small files of a checkpoint by their Hugging Face names: in a directory, or carried by one file.

    Args:
        place: The directory; or the file that carries them, named in errors.
        carried: The carried files by name; None where they lie in the directory.
    """

    def __init__(self, place: Path, carried: Mapping[str, bytes] | None = None) -> None:
        self._place = place
        self._carried = carried

    def where(self, name: str) -> str:
        """What errors about the file call it."""
        return str(self._place / name) if self._carried is None else str(self._place)

    def __contains__(self, name: str) -> bool:
        return (self._place / name).exists() if self._carried is None else name in self._carried

    def read(self, name: str, limit: int = MAX_JSON_BYTES) -> bytes:
        """The whole file.

        Raises:
            InvalidModel: It is larger than `limit` bytes.
            FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
        """
        if self._carried is None:
            return read_small(self._place / name, limit)
        if name not in self._carried:
            raise FileNotFound(f"{self._place} ({name})")
        if len(self._carried[name]) > limit:
            raise InvalidModel(str(self._place), f"its {name} is larger than {limit} bytes")
        return self._carried[name]

    def read_json(self, name: str) -> dict[str, Any]:
        """The file as a JSON object.

        Raises:
            InvalidModel: It is too large, not JSON, or not an object.
            FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
        """
        return parse_json(self.where(name), self.read(name))


class TensorFile(ABC):
    """An open file of named tensors: checked entries, and bytes on demand. Closes as a context manager.

    Args:
        path: The file.

    Raises:
        InvalidFile: Any rule of the format is broken.
        FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
    """

    format: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = os.fspath(path)
        self._descriptor: int | None = open_regular(path)
        try:
            self._header = self._read_header()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _read_header(self) -> Header:
        """Read and check everything but the tensors' bytes."""

    @property
    @abstractmethod
    def side_files(self) -> SideFiles:
        """Configuration, tokenizer and template: beside the file, or carried in it."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return os.fstat(self.descriptor).st_size

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
        """What the file says as pairs of strings; of a SafeTensors file `__metadata__` exactly, empty if absent."""
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
                cause = f"it was cut short after it was opened, at byte {offset + done}"
                raise InvalidFile(self.path, cause, self.format)
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


class SafeTensorsFile(TensorFile):
    """An open SafeTensors file; what else a model needs lies beside it."""

    format = "SafeTensors"

    def _read_header(self) -> Header:
        size = self.size
        prefix = bytearray(min(size, LENGTH_BYTES))
        self.read_into(0, memoryview(prefix))
        raw = bytearray(header_length(self.path, prefix, size))
        self.read_into(LENGTH_BYTES, memoryview(raw))
        return parse_header(self.path, raw, size)

    @property
    def side_files(self) -> SideFiles:
        """The files in the same directory."""
        return SideFiles(Path(self.path).parent)
