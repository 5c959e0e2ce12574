"""The driver of every reader: `python -m conformance.engines.readers tinygrad`."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from typing import cast

from conformance.engines.handles import HandleTable, UnknownHandle
from conformance.engines.readers.open_file import OpenFile, Reader
from conformance.protocol import messages as m
from conformance.protocol.host import serve
from conformance.protocol.tensors import write_tensor


class ReaderAdapter:
    """One reader behind `file.*`; its library is imported with the first call."""

    def __init__(self, name: str) -> None:
        module = importlib.import_module(f"conformance.engines.readers.{name}_reader")
        self._reader = cast("Reader", module)
        self._held = HandleTable()
        self._run_dir = ""

    def initialize(self, params: m.Initialize) -> m.EngineInfo:
        """Say which package is on trial, in the version that is installed."""
        self._run_dir = params.run_dir
        self._refusals = self._reader.refusals()
        package = self._reader.PACKAGE
        told = getattr(self._reader, "version", None)
        version = told() if told else importlib.metadata.version(package)
        language = getattr(self._reader, "LANGUAGE", "python")
        return m.EngineInfo(package, version, [m.Capability.FILE], language=language)

    def describe_error(self, error: Exception) -> m.ErrorData | None:
        """The kind of what the library raises on purpose; None for an accident such as a KeyError within it."""
        name = type(error).__qualname__
        if isinstance(error, UnknownHandle):
            return m.ErrorData(m.ErrorKind.CLOSED_HANDLE, name, {"handle": error.handle})
        if isinstance(error, FileNotFoundError):
            return m.ErrorData(m.ErrorKind.FILE_NOT_FOUND, name)
        if isinstance(error, PermissionError):
            return m.ErrorData(m.ErrorKind.PERMISSION_DENIED, name)
        accident = isinstance(error, KeyError | TypeError | AttributeError | IndexError | UnicodeError | AssertionError)
        if isinstance(error, self._refusals) and (type(error) in self._refusals or not accident):
            named = "dtype" in str(error).lower()  # libraries have one type for all, and say it in words
            return m.ErrorData(m.ErrorKind.UNSUPPORTED_DTYPE if named else m.ErrorKind.INVALID_FILE, name)
        return None

    def file_open(self, params: m.FileOpen) -> m.Handle:
        """Open a file with the library; what it says of a file that is not there gets the protocol's word for it."""
        try:
            file = self._reader.open_file(params.path)
        except self._refusals as error:
            if not Path(params.path).exists():
                raise FileNotFoundError(str(error)) from error
            raise
        return m.Handle(self._held.hold(file))

    def file_inspect(self, params: m.Handle) -> m.FileContents:
        """What the library lists."""
        file = self._held.get(params.handle, OpenFile)
        return m.FileContents(file.entries, file.metadata)

    def file_read(self, params: m.FileRead) -> m.TensorData:
        """One tensor's bytes as the library hands them over."""
        file = self._held.get(params.handle, OpenFile)
        entry = next(entry for entry in file.entries if entry.name == params.tensor)
        return write_tensor(self._run_dir, entry.dtype, entry.shape, file.read(params.tensor))

    def file_close(self, params: m.Handle) -> None:
        """Close the file, where the library has a way to."""
        self._held.take(params.handle, OpenFile).close()


if __name__ == "__main__":
    serve(lambda: ReaderAdapter(sys.argv[1]))
