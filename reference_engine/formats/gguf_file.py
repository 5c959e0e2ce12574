"""A GGUF file of unquantized weights, seen as a checkpoint: Hugging Face names, row order and side files.

What a model computes is decided by keys that other readers default in silence; here a missing one is an error,
and so is a key or tensor of the architecture that this engine would have to ignore.
"""

from __future__ import annotations

import json
import math
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from reference_engine.config import DTYPES as CONFIG_DTYPES
from reference_engine.config import LLAMA
from reference_engine.errors import InvalidFile, UnsupportedDtype, quote
from reference_engine.files import CONFIG, TOKENIZER, TOKENIZER_CONFIG, SideFiles, TensorFile
from reference_engine.formats.byte_level import Vocabulary, tokenizer_json
from reference_engine.formats.carried import CarriedFiles
from reference_engine.formats.gguf_names import ARCHITECTURES, Reordered, checkpoint_name, reordered_heads
from reference_engine.formats.gguf_walk import GgufHeader, GgufTensor, walk_header
from reference_engine.formats.layout import require_apart, require_no_biases
from reference_engine.header import Header, TensorEntry

DTYPES = {0: ("F32", 4), 1: ("F16", 2), 30: ("BF16", 2)}
# Other types that ggml numbers; weights of these types need dequantisation, which this engine does not do.
OTHER_TYPES = frozenset({*range(2, 4), *range(6, 30), *range(34, 36), 39})
TORCH_NAMES = {code: name for name, code in CONFIG_DTYPES.items()}
MAX_NUMBER = 1e30
EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"
REQUIRED = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "vocab_size": "vocab_size",
}
_SPECIALS = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}


class GgufFile(TensorFile):
    """An open GGUF file of Qwen2 or Llama weights in F32, F16 and BF16.

    Raises:
        InvalidFile: A rule of the format is broken, or a key that decides the result is missing or unknown.
        UnsupportedDtype: A tensor is quantized.
    """

    format: ClassVar[str] = "GGUF"
    _reordered: Sequence[Reordered] = ()

    def _read_header(self) -> Header:
        header = walk_header(self.path, self.size, self.read_into)
        self._keys = _Keys(self.path, header.fields)
        tensors = {}
        for tensor in header.tensors:
            entry = self._entry(tensor)
            if entry.name in tensors:
                self._fail(f"tensor {quote(tensor.name)} is there twice")
            tensors[entry.name] = entry
        data_bytes = self.size - header.data_start
        require_apart(self.path, self.format, tensors.values(), max(0, data_bytes), header.alignment)
        self._side_files = CarriedFiles(Path(self.path), _carried(self._keys, tensors))
        self._reordered = sorted(self._reorderings(tensors, header))
        return Header(tensors, self._keys.scalars(), header.data_start)

    def _entry(self, tensor: GgufTensor) -> TensorEntry:
        name = checkpoint_name(tensor.name)
        if name is None:
            self._fail(f"tensor {quote(tensor.name)} has no place in a {self._keys.architecture} model")
        if tensor.type not in DTYPES:
            if tensor.type in OTHER_TYPES:
                raise UnsupportedDtype(self.path, name, f"ggml type {tensor.type}")
            self._fail(f"tensor {quote(tensor.name)} has unknown type {tensor.type}")
        dtype, width = DTYPES[tensor.type]
        return TensorEntry(name, dtype, tensor.shape, tensor.offset, tensor.offset + math.prod(tensor.shape) * width)

    def _reorderings(self, tensors: Mapping[str, TensorEntry], header: GgufHeader) -> list[Reordered]:
        found = []
        count, kv_count = self._keys.heads()
        for entry in tensors.values():
            heads = reordered_heads(self._keys.architecture, entry.name, count, kv_count)
            if not heads or not entry.nbytes:
                continue
            rows = entry.shape[0]
            if rows % (2 * heads):
                self._fail(f"tensor {quote(entry.name)} has {rows} rows, not pairs for {heads} heads")
            begin, end = header.data_start + entry.begin, header.data_start + entry.end
            found.append(Reordered(begin, end, rows // heads, entry.nbytes // rows))
        return found

    @property
    def side_files(self) -> SideFiles:
        """What the keys say, in the words of a Hugging Face checkpoint."""
        return self._side_files

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` from file offset `offset`, rows that GGUF reorders back in the checkpoint's order.

        Raises:
            InvalidFile: The file ends before `target` is full.
            ReadFailed: The operating system reports an error.
        """
        done = 0
        while done < len(target):
            source, length = self._place(offset + done)
            part = target[done : done + length]
            super().read_into(source, part)
            done += len(part)

    def _place(self, offset: int) -> tuple[int, int]:
        """Where the byte at `offset` really lies, and how many bytes follow it there."""
        after = bisect_right(self._reordered, offset, key=lambda reordered: reordered.begin)
        if after and offset < self._reordered[after - 1].end:
            return self._reordered[after - 1].place(offset)
        following = self._reordered[after].begin if after < len(self._reordered) else self.size
        return offset, max(1, following - offset)

    def _fail(self, cause: str) -> NoReturn:
        raise InvalidFile(self.path, cause, self.format)


class _Keys:
    """The pairs of a header, typed, and all of the architecture's known to this engine."""

    def __init__(self, path: str, fields: Mapping[str, Any]) -> None:
        self.path = path
        self.fields = fields
        self.architecture = self.text("general.architecture")
        if self.architecture not in ARCHITECTURES:
            self.fail(f"architecture {quote(self.architecture)} is none of {', '.join(ARCHITECTURES)}")
        prefix = f"{self.architecture}."
        unknown = [
            key for key in fields if key.startswith(prefix) and key.removeprefix(prefix) not in REQUIRED | OPTIONAL
        ]
        if unknown:
            self.fail(f"this engine does not know the key {quote(unknown[0])}, and it may change the result")

    def scalars(self) -> dict[str, str]:
        """Keys with one value each, as text."""
        return {key: str(value) for key, value in self.fields.items() if not isinstance(value, list | memoryview)}

    def heads(self) -> tuple[int, int]:
        """Heads of queries, and of keys and values."""
        heads = self.count(f"{self.architecture}.attention.head_count")
        return heads, self.count(f"{self.architecture}.attention.head_count_kv", heads)

    def count(self, key: str, default: int | None = None) -> int:
        value = self.fields.get(key, default)
        if type(value) is not int or not 0 < value < 2**31:
            self.fail(f"{key} is {quote(str(value))}, not a positive integer")
        return value

    def number(self, key: str) -> float:
        value = self.fields.get(key)
        if type(value) is not float or not 0 < value < MAX_NUMBER:
            self.fail(f"{key} is {quote(str(value))}, not a positive number")
        return _shortest(value)

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        if not isinstance(value, str):
            self.fail(f"{key} is missing or no text")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.fields.get(key)
        if not isinstance(value, list):
            self.fail(f"{key} is missing or no list of texts")
        return value

    def token_id(self, key: str) -> int | None:
        value = self.fields.get(f"tokenizer.ggml.{key}")
        if value is not None and (type(value) is not int or value < 0):
            self.fail(f"tokenizer.ggml.{key} is {quote(str(value))}, not a token id")
        return value

    def fail(self, cause: str) -> NoReturn:
        raise InvalidFile(self.path, cause, "GGUF")


def _carried(keys: _Keys, tensors: Mapping[str, TensorEntry]) -> dict[str, bytes]:
    files = {CONFIG: json.dumps(_config(keys, tensors)).encode()}
    if keys.fields.get("tokenizer.ggml.model", "no_vocab") == "no_vocab":
        return files
    vocabulary = _vocabulary(keys)
    files[TOKENIZER] = tokenizer_json(keys.path, vocabulary)
    files[TOKENIZER_CONFIG] = json.dumps(_tokenizer_config(keys, vocabulary.tokens)).encode()
    return files


def _config(keys: _Keys, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    prefix = f"{keys.architecture}."
    values: dict[str, Any] = {"architectures": [ARCHITECTURES[keys.architecture]], "model_type": keys.architecture}
    for key, name in (REQUIRED | OPTIONAL).items():
        if key in OPTIONAL and prefix + key not in keys.fields:
            continue
        read = keys.number if key in {"rope.freq_base", "attention.layer_norm_rms_epsilon"} else keys.count
        value = read(prefix + key)
        if values.setdefault(name, value) != value:
            keys.fail(f"{prefix}{key} is {value}, another key says {values[name]} for {name}")
    if ARCHITECTURES[keys.architecture] == LLAMA:
        require_no_biases(keys.path, "GGUF", tensors)
    embedding = tensors.get(EMBEDDING)
    if embedding is None or not embedding.shape:
        keys.fail("it has no token_embd.weight")
    if values.setdefault("vocab_size", embedding.shape[0]) != embedding.shape[0]:
        keys.fail(f"{prefix}vocab_size is {values['vocab_size']}, the embedding has {embedding.shape[0]} rows")
    ends = [keys.token_id(f"{name}_token_id") for name in ("eos", "eot", "eom")]
    return values | {
        "bos_token_id": keys.token_id("bos_token_id"),
        "eos_token_id": [token for token in ends if token is not None],
        "tie_word_embeddings": LM_HEAD not in tensors,
        "torch_dtype": TORCH_NAMES[embedding.dtype],
    }


def _shortest(value: float) -> float:
    """The decimal number that was meant: GGUF keeps F32, so 1e-5 comes back as 9.999999747378752e-06."""
    return next(
        short
        for digits in range(1, 18)
        if struct.pack("<f", short := float(f"{value:.{digits}g}")) == struct.pack("<f", value)
    )


def _vocabulary(keys: _Keys) -> Vocabulary:
    kind = keys.text("tokenizer.ggml.model")
    if kind != "gpt2":
        keys.fail(f"its tokenizer is {quote(kind)}, this engine has gpt2, the byte-level BPE")
    if keys.fields.get("tokenizer.ggml.add_bos_token", False) is not False:
        keys.fail("it wants a BOS token before every text, which this engine does not do")
    types = keys.fields.get("tokenizer.ggml.token_type")
    if not isinstance(types, memoryview):
        keys.fail("tokenizer.ggml.token_type is missing or no list of numbers")
    return Vocabulary(
        keys.texts("tokenizer.ggml.tokens"),
        types.tolist(),
        keys.texts("tokenizer.ggml.merges"),
        keys.text("tokenizer.ggml.pre"),
    )


def _tokenizer_config(keys: _Keys, tokens: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, key in _SPECIALS.items():
        token = keys.token_id(key)
        if token is not None and token >= len(tokens):
            keys.fail(f"tokenizer.ggml.{key} is {token}, there are {len(tokens)} tokens")
        if token is not None:
            settings[name] = tokens[token]
    if "tokenizer.chat_template" in keys.fields:
        settings["chat_template"] = keys.text("tokenizer.chat_template")
    return settings
