"""An APR v2 file, read strictly: nothing in it that breaks a rule or is missing is replaced by a default."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from reference_engine.config import DTYPES as CONFIG_DTYPES
from reference_engine.config import LLAMA, QWEN2
from reference_engine.errors import InvalidFile, InvalidModel, UnsupportedDtype, quote
from reference_engine.files import CONFIG, TOKENIZER, TOKENIZER_CONFIG, SideFiles, TensorFile, parse_json
from reference_engine.formats.apr_layout import (
    ALIGNMENT,
    CONFIG_KEYS,
    DTYPES,
    FLAGS,
    FOOTER_BYTES,
    HEADER_BYTES,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_INDEX_BYTES,
    MAX_METADATA_BYTES,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    QUANTIZED_DTYPES,
    REFUSED_FLAGS,
    ROPE_HALVES,
    VERSION,
    AprHeader,
    header_crc,
)
from reference_engine.formats.byte_level import Vocabulary, tokenizer_json
from reference_engine.formats.carried import CarriedFiles
from reference_engine.formats.layout import padded, require_apart, require_no_biases
from reference_engine.header import DTYPE_BITS, U64_MAX, Header, TensorEntry

TORCH_NAMES = {code: name for name, code in CONFIG_DTYPES.items()}
EMBEDDING = "model.embed_tokens.weight"
CRC_BYTES = 4 << 20
LM_HEAD = "lm_head.weight"
ARCHITECTURES = {"qwen2": QWEN2, "llama": LLAMA}


class AprFile(TensorFile):
    """An open APR v2 file; its metadata carry configuration, tokenizer and template.

    Raises:
        InvalidFile: A rule of the format is broken, a checksum is wrong, or metadata that decide the result are
            missing.
        UnsupportedDtype: A tensor is quantized.
    """

    format: ClassVar[str] = "APR"

    def _read_header(self) -> Header:
        size = self.size
        if size < HEADER_BYTES + FOOTER_BYTES:
            self._fail(f"{size} bytes are too few for header and footer")
        header = self._checked(self._bytes(0, HEADER_BYTES), size)
        self._require_footer(size)
        raw = bytes(self._bytes(header.metadata_offset, header.metadata_bytes))
        index = self._bytes(header.index_offset, header.data_offset - header.index_offset)
        tensors = _Index(self.path, index).entries(header.tensor_count)
        data_bytes = size - FOOTER_BYTES - header.data_offset
        require_apart(self.path, self.format, tensors.values(), data_bytes, ALIGNMENT)
        metadata = _Metadata(self.path, raw)
        self._side_files = CarriedFiles(Path(self.path), metadata.carried(tensors))
        return Header(tensors, metadata.texts(), header.data_offset)

    def _checked(self, raw: bytearray, size: int) -> AprHeader:
        header = AprHeader.unpack(raw)
        if header.magic != MAGIC or (header.major, header.minor) != VERSION:
            self._fail(f"magic {header.magic!r} and version {header.major}.{header.minor} are not those of APR 2.0")
        if header.crc != header_crc(raw):
            self._fail(f"the header's checksum is {header_crc(raw):08x}, it says {header.crc:08x}")
        self._require_known_flags(header.flags)
        if any(header.reserved):
            self._fail("the header's reserved bytes are not zero")
        metadata_end = header.metadata_offset + header.metadata_bytes
        if header.metadata_offset != HEADER_BYTES or header.metadata_bytes > MAX_METADATA_BYTES:
            self._fail(f"metadata of {header.metadata_bytes} bytes at {header.metadata_offset}, not at {HEADER_BYTES}")
        if header.index_offset != padded(metadata_end, ALIGNMENT) or header.data_offset % ALIGNMENT:
            self._fail(f"index at {header.index_offset} and data at {header.data_offset} are out of place")
        if not header.index_offset <= header.data_offset <= size - FOOTER_BYTES:
            self._fail(f"data at {header.data_offset} are outside the file of {size} bytes or before the index")
        if header.data_offset - header.index_offset > MAX_INDEX_BYTES or header.tensor_count > MAX_TENSORS:
            self._fail(f"its index of {header.tensor_count} tensors exceeds {MAX_INDEX_BYTES} bytes")
        if any(self._bytes(metadata_end, header.index_offset - metadata_end)):
            self._fail("the metadata's padding is not zero")
        return header

    def _require_known_flags(self, flags: int) -> None:
        unknown = flags & ~sum(FLAGS.values())
        refused = [name for name in REFUSED_FLAGS if flags & FLAGS[name]]
        if unknown or refused:
            self._fail(f"its flags {flags:#x} ask for {', '.join(refused) or 'something unknown'}")
        if not flags & FLAGS["LAYOUT_ROW_MAJOR"]:
            self._fail("its flags do not say that tensors are row-major")

    def _require_footer(self, size: int) -> None:
        crc = 0
        for begin in range(0, size - FOOTER_BYTES, CRC_BYTES):
            crc = zlib.crc32(self._bytes(begin, min(CRC_BYTES, size - FOOTER_BYTES - begin)), crc)
        stated = int.from_bytes(self._bytes(size - FOOTER_BYTES, FOOTER_BYTES), "little")
        if crc != stated:
            self._fail(f"the checksum over the file is {crc:08x}, its footer says {stated:08x}")

    def _bytes(self, begin: int, count: int) -> bytearray:
        data = bytearray(count)
        self.read_into(begin, memoryview(data))
        return data

    @property
    def side_files(self) -> SideFiles:
        """What the metadata say, in the words of a Hugging Face checkpoint."""
        return self._side_files

    def _fail(self, cause: str) -> NoReturn:
        raise InvalidFile(self.path, cause, self.format)


class _Index:
    """The tensor index with a cursor."""

    def __init__(self, path: str, raw: bytearray) -> None:
        self.path = path
        self.raw = raw
        self.at = 0

    def entries(self, count: int) -> dict[str, TensorEntry]:
        tensors: dict[str, TensorEntry] = {}
        before = b""
        for number in range(count):
            raw_name = self.name(number)
            if number and raw_name <= before:
                self.fail(f"its index is not sorted: {quote(raw_name.decode())} does not come after the one before")
            entry = self.entry(raw_name.decode())
            before = raw_name
            tensors[entry.name] = entry
        if len(self.raw) - self.at >= ALIGNMENT or any(self.raw[self.at :]):
            self.fail("something follows the last entry of its index")
        return tensors

    def name(self, number: int) -> bytes:
        (length,) = self.take("<H", f"entry {number}")
        if length > MAX_NAME_BYTES:
            self.fail(f"the name of entry {number} has {length} bytes, more than {MAX_NAME_BYTES}")
        (raw,) = self.take(f"<{length}s", f"entry {number}")
        try:
            raw.decode()
        except UnicodeDecodeError:
            self.fail(f"the name of entry {number} is not UTF-8")
        return bytes(raw)

    def entry(self, name: str) -> TensorEntry:
        code, dimensions = self.take("<BB", quote(name))
        if dimensions > MAX_DIMENSIONS:
            self.fail(f"tensor {quote(name)} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
        shape = self.take(f"<{dimensions}Q", quote(name))
        begin, count = self.take("<QQ", quote(name))
        if code in QUANTIZED_DTYPES:
            raise UnsupportedDtype(self.path, name, QUANTIZED_DTYPES[code])
        if code not in DTYPES:
            self.fail(f"tensor {quote(name)} has unknown dtype {code}")
        dtype = DTYPES[code]
        needed = math.prod(shape) * DTYPE_BITS[dtype] // 8
        if needed != count or begin + count > U64_MAX:
            self.fail(f"tensor {quote(name)} of {dtype} {list(shape)} has {count} bytes at {begin}")
        return TensorEntry(name, dtype, shape, begin, begin + count)

    def take(self, form: str, what: str) -> tuple[Any, ...]:
        try:
            found = struct.unpack_from(form, self.raw, self.at)
        except struct.error:
            self.fail(f"its index ends inside {what}")
        self.at += struct.calcsize(form)
        return found

    def fail(self, cause: str) -> NoReturn:
        raise InvalidFile(self.path, cause, "APR")


class _Metadata:
    """The metadata, typed; null counts as absent."""

    def __init__(self, path: str, raw: bytes) -> None:
        self.path = path
        try:
            found = parse_json(path, raw)
        except InvalidModel as error:
            self.fail(f"its metadata: {error.cause}")
        self.values = {key: value for key, value in found.items() if value is not None}

    def texts(self) -> dict[str, str]:
        """Every value but the tokenizer's lists, as text or as JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in self.values.items()
            if not (key.startswith("tokenizer.") and isinstance(value, list))
        }

    def carried(self, tensors: Mapping[str, TensorEntry]) -> dict[str, bytes]:
        """The side files of a checkpoint."""
        files = {CONFIG: json.dumps(self.config(tensors)).encode()}
        if "tokenizer.vocabulary" in self.values:
            vocabulary = self.vocabulary()
            files[TOKENIZER] = tokenizer_json(self.path, vocabulary)
            files[TOKENIZER_CONFIG] = json.dumps(self.tokenizer_config(vocabulary)).encode()
        return files

    def config(self, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
        missing = [key for key in (*CONFIG_KEYS, "rope_type") if key not in self.values]
        if missing:
            self.fail(f"its metadata lack {missing[0]}, which decides what is computed")
        if self.values["rope_type"] != ROPE_HALVES:
            self.fail(
                f"rope_type is {quote(str(self.values['rope_type']))}, this engine rotates halves ({ROPE_HALVES})"
            )
        values = {name: self.values[key] for key, name in CONFIG_KEYS.items()}
        if "head_dim" in self.values:
            values["head_dim"] = self.values["head_dim"]
        tied = self.values.get("tied_embeddings", False)
        embedding = tensors.get(EMBEDDING)
        if embedding is not None and embedding.dtype in TORCH_NAMES:
            values["torch_dtype"] = TORCH_NAMES[embedding.dtype]
        class_name = self.class_name()
        if class_name == LLAMA:
            require_no_biases(self.path, "APR", tensors)
        return values | {
            "architectures": [class_name],
            "bos_token_id": self.values.get("tokenizer.bos_token_id"),
            "eos_token_id": self.end_ids(),
            "tie_word_embeddings": tied is True and LM_HEAD not in tensors,
        }

    def class_name(self) -> str:
        name = self.values.get("hf_architecture")
        if name is None:
            kind = self.values.get("architecture", self.values.get("model_type"))
            name = ARCHITECTURES.get(kind) if isinstance(kind, str) else None
        if not isinstance(name, str) or name not in ARCHITECTURES.values():
            self.fail(f"its architecture is none of {', '.join(ARCHITECTURES)}")
        return name

    def end_ids(self) -> list[Any]:
        """Of the tokenizer, and of config.json's key where a converter kept it."""
        found: list[Any] = []
        for key in ("tokenizer.eos_token_id", "eos_token_id"):
            value = self.values.get(key, [])
            found += value if isinstance(value, list) else [value]
        return list(dict.fromkeys(map(_hashable, found)))

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            self.list_of("tokenizer.vocabulary", str),
            self.list_of("tokenizer.token_type", int),
            self.list_of("tokenizer.merges", str),
            self.text("tokenizer.pre_type"),
        )

    def tokenizer_config(self, vocabulary: Vocabulary) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for name, key in {"bos_token": "bos_token_id", "eos_token": "eos_token_id"}.items():
            token = self.values.get(f"tokenizer.{key}")
            if token is None:
                continue
            if type(token) is not int or not 0 <= token < len(vocabulary.tokens):
                self.fail(f"tokenizer.{key} is {quote(str(token))}, not the id of a token")
            settings[name] = vocabulary.tokens[token]
        template = self.values.get("chat_template", self.values.get("tokenizer.chat_template"))
        return settings if template is None else settings | {"chat_template": template}

    def list_of(self, key: str, kind: type) -> list[Any]:
        value = self.values.get(key)
        if not isinstance(value, list) or any(type(item) is not kind for item in value):
            self.fail(f"{key} is missing or not a list of {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            self.fail(f"{key} is missing or no text")
        return value

    def fail(self, cause: str) -> NoReturn:
        raise InvalidFile(self.path, cause, "APR")


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str | float) else str(value)
