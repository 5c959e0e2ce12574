"""The tensors and metadata of an APR v2 file, for judging what others write: anything out of order is refused."""

from __future__ import annotations

import itertools
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

_CODES = {0: ("F32", 4), 1: ("F16", 2), 30: ("BF16", 2)}
_ROW_MAJOR, _HAS_VOCAB = 0x400, 0x200


class AprBroken(Exception):
    """A file that is not what the format's description says; carries the path and the broken rule."""

    def __init__(self, path: Path, rule: str) -> None:
        super().__init__(f"{path}: {rule}")
        self.path = path
        self.rule = rule


class AprContents(NamedTuple):
    """Metadata, and dtype, shape and bytes of every tensor in the index's order."""

    metadata: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]]


def read_apr(path: Path) -> AprContents:
    """Read a file of ours, or one that an engine wrote, whole.

    Raises:
        AprBroken: A rule of the format is broken.
    """
    raw = path.read_bytes()

    def require(holds: bool, rule: str) -> None:
        if not holds:
            raise AprBroken(path, rule)

    require(len(raw) >= 68 and raw[:6] == b"APR\0\x02\0", "magic and version are those of APR 2.0")  # noqa: PLR2004
    flags, count, meta_at, meta_size, index_at, data_at, crc = struct.unpack_from("<HIQIQQI", raw, 6)
    require(crc == zlib.crc32(raw[:40] + raw[44:64]), "the header's checksum is right")
    require(struct.unpack("<I", raw[-4:])[0] == zlib.crc32(raw[:-4]), "the footer is the checksum of all before it")
    require(flags & ~_HAS_VOCAB == _ROW_MAJOR, "row-major and nothing else that changes the reading")
    require(meta_at == 64 and not any(raw[44:64]), "metadata follow the header, reserved bytes are zero")  # noqa: PLR2004
    require(index_at == _up(meta_at + meta_size) <= data_at <= len(raw) - 4, "metadata, index and data are in order")
    require(not any(raw[meta_at + meta_size : index_at]), "padding of the metadata is zero")
    entries, end = _entries(raw, index_at, count)
    require(data_at == _up(end) and not any(raw[end:data_at]), "the index ends where it says, padding is zero")
    require([name for name, *_ in entries] == sorted({name for name, *_ in entries}), "names ascend, each once")
    tensors, spans = {}, []
    for name, code, shape, offset, size in entries:
        require(code in _CODES, f"dtype code {code} is one of {sorted(_CODES)}")
        dtype, width = _CODES[code]
        require(size == math.prod(shape) * width, f"{name!r}: bytes fit dtype and shape")
        require(offset % 64 == 0 and data_at + offset + size <= len(raw) - 4, f"{name!r}: aligned and inside the file")
        tensors[name.decode()] = (dtype, shape, raw[data_at + offset : data_at + offset + size])
        spans.append((offset, offset + size))
    spans.sort()
    require(all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), "no two tensors overlap")
    return AprContents(json.loads(raw[meta_at : meta_at + meta_size]), tensors)


def _entries(raw: bytes, at: int, count: int) -> tuple[list[tuple[bytes, int, tuple[int, ...], int, int]], int]:
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<H", raw, at)
        name = raw[at + 2 : at + 2 + length]
        at += 2 + length
        code, dimensions = struct.unpack_from("<BB", raw, at)
        *shape, offset, size = struct.unpack_from(f"<{dimensions}QQQ", raw, at + 2)
        at += 2 + 8 * (dimensions + 2)
        found.append((name, code, tuple(shape), offset, size))
    return found, at


def _up(offset: int) -> int:
    return offset + -offset % 64
