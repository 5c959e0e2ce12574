"""A checkpoint as an APR v2 file, every tensor bit for bit."""

from __future__ import annotations

import json
import struct
import zlib
from typing import IO, TYPE_CHECKING, Any

from reference_engine.errors import InvalidModel, UnsupportedDtype
from reference_engine.formats.apr_layout import (
    ALIGNMENT,
    CONFIG_KEYS,
    DTYPES,
    FLAGS,
    HEADER_BYTES,
    MAGIC,
    MAX_METADATA_BYTES,
    MAX_NAME_BYTES,
    ROPE_HALVES,
    VERSION,
    AprHeader,
)
from reference_engine.formats.layout import padded
from reference_engine.weights import LM_HEAD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from reference_engine.checkpoint import Checkpoint, Located
    from reference_engine.formats.described import Described

COPY_BYTES = 16 << 20
_CODES = {name: code for code, name in DTYPES.items()}
_CONFIG_FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "num_kv_heads": "num_kv_heads",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_positions",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_norm_eps",
}


def write_apr(path: Path, checkpoint: Checkpoint, described: Described) -> None:
    """Write an APR file.

    Raises:
        UnsupportedDtype: APR has no code for a tensor's dtype.
        InvalidModel: The metadata or a tensor's name is too long for the format.
        OSError: The file cannot be written.
    """
    names = sorted(checkpoint.tensors, key=str.encode)
    begins, data_bytes = {}, 0
    for name in names:
        begins[name] = data_bytes
        data_bytes = padded(data_bytes + checkpoint.tensors[name].entry.nbytes, ALIGNMENT)
    metadata = json.dumps(_metadata(checkpoint, described), ensure_ascii=False).encode()
    if len(metadata) > MAX_METADATA_BYTES:
        raise InvalidModel(str(checkpoint.path), f"its metadata of {len(metadata)} bytes are too long for APR")
    index = b"".join(_entry(name, checkpoint.tensors[name], begins[name]) for name in names)
    index_offset = padded(HEADER_BYTES + len(metadata), ALIGNMENT)
    flags = FLAGS["LAYOUT_ROW_MAJOR"] | (FLAGS["HAS_VOCAB"] if described.vocabulary else 0)
    data_offset = padded(index_offset + len(index), ALIGNMENT)
    header = AprHeader(
        MAGIC, *VERSION, flags, len(names), HEADER_BYTES, len(metadata), index_offset, data_offset, 0, bytes(20)
    )
    with path.open("wb") as file:
        summed = _Summed(file)
        for part in (header.pack(), metadata, index):
            summed.write_padded(part)
        for name in names:
            _copy(checkpoint.tensors[name], summed)
        file.write(struct.pack("<I", summed.crc))


class _Summed:
    """A file that is written in padded parts, and the checksum of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.crc = 0
        self.length = 0

    def write(self, part: bytes | bytearray) -> None:
        self.crc = zlib.crc32(part, self.crc)
        self.length += len(part)
        self.file.write(part)

    def write_padded(self, part: bytes) -> None:
        self.write(part)
        self.pad()

    def pad(self) -> None:
        self.write(bytes(-self.length % ALIGNMENT))


def _copy(located: Located, target: _Summed) -> None:
    file, entry = located.file, located.entry
    for begin in range(entry.begin, entry.end, COPY_BYTES):
        part = bytearray(min(COPY_BYTES, entry.end - begin))
        file.read_into(file.data_start + begin, memoryview(part))
        target.write(part)
    target.pad()


def _entry(name: str, located: Located, begin: int) -> bytes:
    entry, raw = located.entry, name.encode()
    if entry.dtype not in _CODES:
        raise UnsupportedDtype(located.file.path, name, entry.dtype)
    if len(raw) > MAX_NAME_BYTES:
        raise InvalidModel(located.file.path, f"a tensor's name of {len(raw)} bytes is too long for APR")
    sizes = struct.pack(f"<BB{len(entry.shape)}Q", _CODES[entry.dtype], len(entry.shape), *entry.shape)
    return struct.pack("<H", len(raw)) + raw + sizes + struct.pack("<QQ", begin, entry.nbytes)


def _metadata(checkpoint: Checkpoint, described: Described) -> Mapping[str, Any]:
    config = described.config
    values: dict[str, Any] = {key: getattr(config, _CONFIG_FIELDS[key]) for key in CONFIG_KEYS}
    values |= {
        "model_type": described.family,
        "architecture": described.family,
        "hf_architecture": config.architecture,
        "original_format": next(iter(checkpoint.tensors.values())).file.format.lower(),
        "head_dim": config.head_dim,
        "rope_type": ROPE_HALVES,
        "tied_embeddings": config.tie_word_embeddings and LM_HEAD not in checkpoint.tensors,
        "eos_token_id": list(config.eos_token_ids),
        "chat_template": described.template,
        "tokenizer.bos_token_id": config.bos_token_id,
    }
    if described.vocabulary is not None:
        tokens, types, merges, pre = described.vocabulary
        values |= {
            "tokenizer.vocabulary": tokens,
            "tokenizer.token_type": types,
            "tokenizer.merges": merges,
            "tokenizer.pre_type": pre,
            "tokenizer.vocab_size": len(tokens),
            "tokenizer.model_type": "BPE",
            "tokenizer.eos_token_id": next(iter(config.eos_token_ids), None),
        }
    return values
