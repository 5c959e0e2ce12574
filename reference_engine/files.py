"""Files as untrusted input: a file of tensors opened once and read in bounded steps, and small JSON files.

Bytes are read with `preadv`, never through a mapping: a file cut short after it was opened gives an error
instead of SIGBUS, and what was read does not change when the file does.
"""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

import msgspec

from reference_engine import errors
from reference_engine.header import LENGTH_BYTES, Header, header_length, parse_header

READ_BYTES = 1 << 30
CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
MAX_JSON_BYTES = 64 << 20
T = TypeVar("T")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what the operating system says inside the block into FileNotFound, PermissionDenied or ReadFailed."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise errors.FileNotFound(path) from None
    except PermissionError:
        raise errors.PermissionDenied(path) from None
    except OSError as error:
        raise errors.ReadFailed(path, error.strerror or str(error)) from None


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises:
        FileNotFound, PermissionDenied, ReadFailed: As the operating system says; also for a directory,
            a pipe or a device, which would block or never end.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise errors.FileNotFound(name)
    with reading(name):
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise errors.ReadFailed(name, "it is not a regular file")


def parse_json(path: str, raw: bytes) -> dict[str, Any]:
    """The JSON object that `raw` spells in UTF-8; `path` is named in errors.

    Raises:
        InvalidModel: It is not JSON, or not an object.
    """
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except RecursionError:
        raise errors.InvalidModel(path, "its JSON is nested too deeply") from None
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise errors.InvalidModel(path, f"it is not a JSON object: {error}") from None


def typed(path: str, value: dict[str, Any], kind: type[T]) -> T:
    """JSON's fields as `kind` declares them; what it does not declare is let be.

    Raises:
        InvalidModel: A field is missing, or is not of its type.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise errors.InvalidModel(path, str(error)) from None


class SideFiles:
    """The small files of a checkpoint by their Hugging Face names, in a directory."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def where(self, name: str) -> str:
        """What errors about the file call it."""
        return str(self._place / name)

    def __contains__(self, name: str) -> bool:
        return (self._place / name).exists()

    def read(self, name: str, limit: int = MAX_JSON_BYTES) -> bytes:
        """The whole file.

        Raises:
            InvalidModel: It is larger than `limit` bytes.
            FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
        """
        with self._open(name) as file, reading(self.where(name)):
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise errors.InvalidModel(self.where(name), f"it is larger than {limit} bytes")
        return raw

    def _open(self, name: str) -> BinaryIO:
        return os.fdopen(open_regular(self.where(name)), "rb")

    def read_json(self, name: str) -> dict[str, Any]:
        """The file as a JSON object.

        Raises:
            InvalidModel: It is too large, not JSON, or not an object.
            FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
        """
        return parse_json(self.where(name), self.read(name))


class TensorFile(AbstractContextManager["TensorFile"]):
    """An open file of named tensors: checked entries, and bytes on demand. Closes as a context manager.

    Attributes:
        path: The file.
        tensors: Entries by name, in the header's order.
        metadata: What the file says as pairs of strings; of a SafeTensors file `__metadata__` exactly, empty if absent.
        data_start: File offset of the data buffer.

    Raises:
        InvalidFile: Any rule of the format is broken.
        FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
    """

    format: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = os.fspath(path)
        self._descriptor: int | None = open_regular(path)
        try:
            header = self._read_header()
        except BaseException:
            self.close()
            raise
        self.tensors, self.metadata, self.data_start = header.tensors, header.metadata, header.data_start

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
            raise errors.ClosedHandle(f"file {self.path}")
        return self._descriptor

    def read(self, name: str) -> bytearray:
        """Bytes of one tensor as they are in the file.

        Raises:
            InvalidArgument: The file has no such tensor.
            InvalidFile: The file was cut short after it was opened.
        """
        entry = self.tensors.get(name)
        if entry is None:
            raise errors.InvalidArgument("tensor", f"{name!r} is not in {self.path}")
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
            with reading(self.path):
                count = os.preadv(self.descriptor, [target[done : done + READ_BYTES]], offset + done)
            if count == 0:
                cause = f"it was cut short after it was opened, at byte {offset + done}"
                raise errors.InvalidFile(self.path, cause, self.format)
            done += count

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

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
