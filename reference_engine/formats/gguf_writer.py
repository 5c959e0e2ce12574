"""A checkpoint as a GGUF file, written by the `gguf` library; values are kept, rows ordered as llama.cpp wants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter

from reference_engine.errors import InvalidModel, UnsupportedDtype, quote
from reference_engine.formats.gguf_names import gguf_name, reordered_heads

if TYPE_CHECKING:
    from pathlib import Path

    from reference_engine.checkpoint import Checkpoint, Located
    from reference_engine.config import ModelConfig
    from reference_engine.formats.described import Described

FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}
NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
END_KEYS = ("eos", "eot", "eom")


def write_gguf(path: Path, checkpoint: Checkpoint, described: Described) -> None:
    """Write a GGUF file; one-dimensional tensors become F32, which is exact.

    Raises:
        UnsupportedDtype: A tensor is not F32, F16 or BF16.
        InvalidModel: GGUF has no name for a tensor, or no keys for that many stop ids.
        OSError: The file cannot be written.
    """
    names = {name: _name(checkpoint, name) for name in checkpoint.tensors}
    writer = GGUFWriter(path, described.family)
    try:
        _add_config(writer, described.config)
        _add_tokenizer(writer, described, str(checkpoint.path))
        writer.add_file_type(FILE_TYPES[checkpoint.tensors["model.embed_tokens.weight"].entry.dtype])
        for name, theirs in names.items():
            _add_info(writer, theirs, checkpoint.tensors[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in names:
            writer.write_tensor_data(_values(checkpoint.tensors[name], described))
    finally:
        writer.close()


def _name(checkpoint: Checkpoint, name: str) -> str:
    found, entry = gguf_name(name), checkpoint.tensors[name].entry
    if found is None:
        raise InvalidModel(str(checkpoint.path), f"GGUF has no name for the tensor {quote(name)}")
    if entry.dtype not in NUMPY_DTYPES:
        raise UnsupportedDtype(checkpoint.tensors[name].file.path, name, entry.dtype)
    return found


def _add_config(writer: GGUFWriter, config: ModelConfig) -> None:
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: GGUFWriter, described: Described, path: str) -> None:
    ends = described.config.eos_token_ids
    if len(ends) > len(END_KEYS):
        raise InvalidModel(path, f"GGUF has keys for {len(END_KEYS)} stop ids, there are {len(ends)}")
    for key, token in zip(END_KEYS, ends, strict=False):
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", token)
    if described.config.bos_token_id is not None:
        writer.add_bos_token_id(described.config.bos_token_id)
    if described.template is not None:
        writer.add_chat_template(described.template)
    if described.vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
        return
    tokens, types, merges, pre = described.vocabulary
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(value=False)


def _add_info(writer: GGUFWriter, name: str, located: Located) -> None:
    entry = located.entry
    kind = GGMLQuantizationType["F32" if len(entry.shape) == 1 else entry.dtype]
    width = np.dtype(NUMPY_DTYPES[kind.name])
    writer.add_tensor_info(name, entry.shape, width, math.prod(entry.shape) * width.itemsize, raw_dtype=kind)


def _values(located: Located, described: Described) -> npt.NDArray[Any]:
    file, entry = located.file, located.entry
    values = np.empty(entry.shape, NUMPY_DTYPES[entry.dtype])
    file.read_into(file.data_start + entry.begin, values.reshape(-1).view(np.uint8).data)
    config = described.config
    heads = reordered_heads(described.family, entry.name, config.num_heads, config.num_kv_heads)
    if heads:
        halves = values.reshape(heads, 2, -1, *entry.shape[1:])
        values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(entry.shape))
    return _as_f32(values, entry.dtype) if values.ndim == 1 else values


def _as_f32(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
