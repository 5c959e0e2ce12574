"""Tensors as bits: patterns that betray a conversion, host files for the protocol, and small SafeTensors files."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from conformance.protocol.messages import TensorData
from conformance.protocol.tensors import write_tensor
from conformance.trial.stand import Stand

ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
PATTERN_CLASSES = ("quiet NaNs", "signalling NaNs", "payload NaNs", "zeros", "subnormals", "infinities", "extremes")
_PATTERNS: dict[str, dict[str, tuple[int, ...]]] = {
    "F32": {
        "quiet NaNs": (0x7FC00000, 0xFFC00000),
        "signalling NaNs": (0x7F800001, 0xFF800001, 0x7FA00000),
        "payload NaNs": (0x7FC12345, 0xFFFFFFFF, 0x7FFFFFFF, 0x7F8FFFFF),
        "zeros": (0x00000000, 0x80000000),
        "subnormals": (0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00400000),
        "infinities": (0x7F800000, 0xFF800000),
        "extremes": (0x7F7FFFFF, 0xFF7FFFFF, 0x00800000, 0x3F800001, 0x33800000),
    },
    "F16": {
        "quiet NaNs": (0x7E00, 0xFE00),
        "signalling NaNs": (0x7C01, 0xFC01, 0x7D00),
        "payload NaNs": (0x7E55, 0xFFFF, 0x7DFF),
        "zeros": (0x0000, 0x8000),
        "subnormals": (0x0001, 0x8001, 0x03FF, 0x83FF, 0x0200),
        "infinities": (0x7C00, 0xFC00),
        "extremes": (0x7BFF, 0xFBFF, 0x0400, 0x3C01),
    },
    "BF16": {
        "quiet NaNs": (0x7FC0, 0xFFC0),
        "signalling NaNs": (0x7F81, 0xFF81, 0x7FA0),
        "payload NaNs": (0x7FD5, 0xFFFF, 0x7FBF),
        "zeros": (0x0000, 0x8000),
        "subnormals": (0x0001, 0x8001, 0x007F, 0x807F, 0x0040),
        "infinities": (0x7F80, 0xFF80),
        "extremes": (0x7F7F, 0xFF7F, 0x0080, 0x3F81),
    },
}


def special_values(dtype: str) -> dict[str, bytes]:
    """Bit patterns by class, little-endian, 67 values each, so that vector bodies and tails see them."""
    code = "<I" if ITEM_BYTES[dtype] == 4 else "<H"
    return {
        name: b"".join(struct.pack(code, patterns[i % len(patterns)]) for i in range(67))
        for name, patterns in _PATTERNS[dtype].items()
    }


def bits_of(dtype: str, count: int, source: random.Random) -> bytes:
    """`count` values of random bits: every exponent, NaN and infinity is likely."""
    size = count * ITEM_BYTES[dtype]
    block = source.randbytes(min(size, 16 * 1024 * 1024))
    times, rest = divmod(size, max(len(block), 1))
    return block * times + block[:rest]


def every_half_pattern(source: random.Random) -> bytes:
    """All 65,536 patterns of a 16-bit type, each once, in random order."""
    order = list(range(65536))
    source.shuffle(order)
    return struct.pack("<65536H", *order)


def host_tensor(stand: Stand, dtype: str, shape: Sequence[int], payload: bytes) -> TensorData:
    """A raw file in this row's directory, described for the protocol."""
    return write_tensor(stand.directory, dtype, list(shape), payload)


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[str, Sequence[int], bytes]], *, data_start: int = 0
) -> Path:
    """A valid file with the tensors in this order, whose data section starts at `data_start` modulo 8."""
    header: dict[str, object] = {}
    position = 0
    for name, (dtype, shape, payload) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(payload)]}
        position += len(payload)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * ((data_start - len(text)) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(payload for _, _, payload in tensors.values()))
    return path
