"""Which format a file has is decided by its first bytes, never by its name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reference_engine.errors import InvalidFile
from reference_engine.files import SafeTensorsFile, TensorFile, open_regular, reading
from reference_engine.formats.apr_file import AprFile
from reference_engine.formats.gguf_file import GgufFile

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = (SafeTensorsFile, GgufFile, AprFile)
SNIFFED_BYTES = 8
APR_MAGICS = (b"APR\0", b"APR1", b"APR2", b"APRN")


def open_tensors(path: str | Path) -> TensorFile:
    """Open a SafeTensors, GGUF or APR file and check it.

    Raises:
        InvalidFile: A rule of the format is broken, or the name promises SafeTensors and the content is not.
        UnsupportedDtype: A tensor is stored in a way that this engine cannot read.
        FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
    """
    kind = _kind(_first_bytes(path))
    if kind is not SafeTensorsFile and os.fspath(path).endswith(".safetensors"):
        raise InvalidFile(os.fspath(path), f"its content is {kind.format}, rename it if that is what you want")
    return kind(path)


def _kind(begin: bytes) -> type[TensorFile]:
    if begin.startswith(b"GGUF"):
        return GgufFile
    # A SafeTensors header of 5,394,497 bytes begins with "APR\0" too, then four bytes of zeros.
    if begin.startswith(APR_MAGICS) and begin[4:SNIFFED_BYTES] != bytes(4):
        return AprFile
    return SafeTensorsFile


def _first_bytes(path: str | Path) -> bytes:
    with os.fdopen(open_regular(path), "rb", buffering=0) as file, reading(os.fspath(path)):
        return file.read(SNIFFED_BYTES) or b""
