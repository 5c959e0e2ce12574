"""The APR v2 format as far as reader and writer share it: header fields, flags, dtypes, names of metadata keys.

Little-endian: a header of 64 bytes, metadata as JSON, the tensor index, the tensors' data, a CRC-32 of all of it.
Metadata, index, data and every tensor begin at multiples of 64. An index entry is u16 length and name, u8 dtype,
u8 dimensions, u64 each, u64 offset into the data, u64 bytes; names ascend bytewise. Source: aprender's `format/v2`.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MAGIC = b"APR\0"
VERSION = (2, 0)
ALIGNMENT = 64
HEADER_BYTES = 64
FOOTER_BYTES = 4
MAX_METADATA_BYTES = 16 << 20
MAX_INDEX_BYTES = 64 << 20
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 256
MAX_DIMENSIONS = 8
FLAGS = {
    "LZ4": 0x1, "ZSTD": 0x2, "ENCRYPTED": 0x4, "SIGNED": 0x8, "SHARDED": 0x10, "QUANTIZED": 0x20,
    "HAS_FILTERBANK": 0x40, "HAS_MODEL_CARD": 0x80, "STREAMING": 0x100, "HAS_VOCAB": 0x200,
    "LAYOUT_ROW_MAJOR": 0x400, "LAYOUT_COLUMN_MAJOR": 0x800,
}  # fmt: skip
REFUSED_FLAGS = ("LZ4", "ZSTD", "ENCRYPTED", "SIGNED", "SHARDED", "QUANTIZED", "LAYOUT_COLUMN_MAJOR")
DTYPES = {0: "F32", 1: "F16", 3: "F64", 4: "I32", 5: "I64", 6: "I8", 7: "U8", 30: "BF16"}
QUANTIZED_DTYPES = {8: "AprQ4", 9: "AprQ8", 12: "Q4_K", 14: "Q6_K", 128: "AprQ4", 129: "AprQ8"}
ROPE_HALVES = 2
CONFIG_KEYS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_norm_eps",
}
"""Metadata keys that a model needs, and config.json's names for them."""

_HEADER = struct.Struct("<4sBBHIQIQQI20s")


class AprHeader(NamedTuple):
    """The first 64 bytes, in their order."""

    magic: bytes
    major: int
    minor: int
    flags: int
    tensor_count: int
    metadata_offset: int
    metadata_bytes: int
    index_offset: int
    data_offset: int
    crc: int
    reserved: bytes

    @classmethod
    def unpack(cls, raw: bytes | bytearray) -> AprHeader:
        """From 64 bytes."""
        return cls(*_HEADER.unpack(raw))

    def pack(self) -> bytes:
        """The 64 bytes, with the header's checksum filled in."""
        raw = _HEADER.pack(*self)
        return raw[:40] + struct.pack("<I", header_crc(raw)) + raw[44:]


def header_crc(raw: bytes | bytearray) -> int:
    """CRC-32 of a header but for the checksum's own four bytes."""
    return zlib.crc32(raw[44:], zlib.crc32(raw[:40]))
