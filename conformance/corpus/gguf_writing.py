"""A checkpoint as a GGUF file for llama.cpp, tensors bit-equal up to the row order that it wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

from conformance.corpus.checkpoint import CheckpointInvalid, read_json
from conformance.corpus.gguf_layout import gguf_name, heads_to_permute, interleave
from conformance.corpus.weights_file import Array

GGUF_NAME = "model.gguf"
_FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
}
_ARCHITECTURES = ("qwen2", "llama")


def write_gguf(path: Path, source: Path, tensors: dict[str, Array], dtype: str, alignment: int | None = None) -> None:
    """Write a GGUF file.

    Args:
        path: The file to write.
        source: The checkpoint directory; its config, tokenizer and template become GGUF's keys.
        tensors: Under the checkpoint's names, in `dtype` (BF16 as uint16 bits); one-dimensional ones in F32.
        dtype: F32, F16 or BF16.
        alignment: Of the tensors' data in bytes, a power of two; None is the format's own, and not written down.

    Raises:
        CheckpointInvalid: The architecture is neither qwen2 nor llama, or the tokenizer is no byte-level BPE.
    """
    config = read_json(source / "config.json")
    architecture = config.get("model_type")
    if architecture not in _ARCHITECTURES:
        raise CheckpointInvalid(source, f"model_type {architecture!r} is neither qwen2 nor llama")
    writer = GGUFWriter(path, architecture)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    _add_shape(writer, config)
    writer.add_file_type(_FILE_TYPES[dtype])
    _add_tokenizer(writer, source, config)
    for name, values in tensors.items():
        if not (name == "lm_head.weight" and config.get("tie_word_embeddings")):
            _add_tensor(writer, name, values, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rope_theta(config: dict[str, Any]) -> float:
    """Rotary base from either spelling of the configuration."""
    parameters = config.get("rope_parameters") or {}
    return float(config.get("rope_theta") or parameters.get("rope_theta") or 10000.0)


def _add_shape(writer: GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])
    if head_dim * heads != config["hidden_size"]:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)


def _add_tensor(writer: GGUFWriter, name: str, values: Array, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    permuted = heads_to_permute(name, config["model_type"], heads, kv_heads)
    values = np.ascontiguousarray(interleave(values, permuted) if permuted else values)
    raw = GGMLQuantizationType.BF16 if values.dtype == np.uint16 else None
    data = values.view(np.uint8) if raw is not None else values
    writer.add_tensor(gguf_name(name, config["num_hidden_layers"]), data, raw_dtype=raw)


def _add_tokenizer(writer: GGUFWriter, source: Path, config: dict[str, Any]) -> None:
    """Tokens in order of their ids, padded to the model's rows; without a tokenizer the file says so."""
    path = source / "tokenizer.json"
    if not path.is_file():
        writer.add_tokenizer_model("no_vocab")
        return
    content = read_json(path)
    tokens, types, merges = token_lists(path, content, config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(content))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    _add_special_tokens(writer, source, config)


def token_lists(path: Path, content: dict[str, Any], rows: int) -> tuple[list[str], list[TokenType], list[str]]:
    """Tokens by id, filled up to `rows`, their types, and the merges, of a tokenizer.json.

    Raises:
        CheckpointInvalid: It is no BPE.
    """
    model = content.get("model", {})
    if model.get("type") != "BPE":
        raise CheckpointInvalid(path, f"a {model.get('type')} tokenizer, not a byte-level BPE")
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [TokenType.UNUSED] * len(tokens)
    for token, index in model["vocab"].items():
        tokens[index], types[index] = token, TokenType.NORMAL
    for added in content.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    return tokens, types, [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]


def pre_tokenizer(content: dict[str, Any]) -> str:
    """llama.cpp's name for how text is split before merging."""
    described = content.get("pre_tokenizer") or {}
    kinds = [part["type"] for part in described.get("pretokenizers", [described]) if "type" in part]
    if "Digits" in kinds:
        return "smollm"
    return "qwen2" if "Split" in kinds else "gpt-2"


def _add_special_tokens(writer: GGUFWriter, source: Path, config: dict[str, Any]) -> None:
    ends = config.get("eos_token_id")
    generation = source / "generation_config.json"
    if generation.is_file():
        ends = read_json(generation).get("eos_token_id", ends)
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if listed:
        writer.add_eos_token_id(listed[0])
    if len(listed) > 1:
        writer.add_eot_token_id(listed[1])
    if config.get("bos_token_id") is not None:
        writer.add_bos_token_id(config["bos_token_id"])
    writer.add_add_bos_token(False)
    settings = source / "tokenizer_config.json"
    template = source / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))
    elif settings.is_file() and isinstance(text := read_json(settings).get("chat_template"), str):
        writer.add_chat_template(text)
