"""A checkpoint in the Hugging Face layout from a GGUF file, its weights dequantised exactly to F32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from conformance.corpus.gguf_layout import checkpoint_name, deinterleave, heads_to_permute
from conformance.corpus.weights_file import Array, write_tensors

_CONTROL, _USER_DEFINED = 3, 4
_MODEL_CLASS = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_PRE_TOKENIZERS = {
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL | {"use_regex": True}],
    "qwen2": [
        {
            "type": "Split",
            "pattern": {
                "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            },
            "behavior": "Isolated",
            "invert": False,
        },
        _BYTE_LEVEL | {"use_regex": False},
    ],
}


class GgufUnsupported(Exception):
    """A GGUF file that this conversion does not know how to read."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what


def checkpoint_from_gguf(path: Path, directory: Path) -> None:
    """Write config, weights in F32, tokenizer and chat template of a GGUF file into a directory.

    Raises:
        GgufUnsupported: Architecture, tokenizer or a tensor is unknown.
    """
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    if architecture not in _MODEL_CLASS:
        raise GgufUnsupported(path, f"architecture {architecture!r}, not llama or qwen2")
    config = _config(fields, tied=not any(tensor.name == "output.weight" for tensor in reader.tensors))
    write_tensors(directory / "model.safetensors", _weights(path, reader, architecture, config))
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", _generation_config(fields))
    _write_json(directory / "tokenizer.json", _tokenizer(path, fields))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(fields))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _weights(path: Path, reader: GGUFReader, architecture: str, config: dict[str, Any]) -> dict[str, Array]:
    weights = {}
    for tensor in reader.tensors:
        try:
            name = checkpoint_name(tensor.name, config["num_hidden_layers"])
        except KeyError as error:
            raise GgufUnsupported(path, f"tensor {tensor.name!r}") from error
        shape = tuple(int(size) for size in reversed(tensor.shape))
        values = dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float32)
        heads = heads_to_permute(name, architecture, config["num_attention_heads"], config["num_key_value_heads"])
        weights[name] = deinterleave(values, heads) if heads else values
    return weights


def _config(fields: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    architecture = fields["general.architecture"]
    heads = fields[f"{architecture}.attention.head_count"]
    return {
        "architectures": [_MODEL_CLASS[architecture]],
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "hidden_act": "silu",
        "hidden_size": fields[f"{architecture}.embedding_length"],
        "intermediate_size": fields[f"{architecture}.feed_forward_length"],
        "max_position_embeddings": fields[f"{architecture}.context_length"],
        "model_type": architecture,
        "num_attention_heads": heads,
        "num_hidden_layers": fields[f"{architecture}.block_count"],
        "num_key_value_heads": fields.get(f"{architecture}.attention.head_count_kv", heads),
        "rms_norm_eps": _shortest(fields[f"{architecture}.attention.layer_norm_rms_epsilon"]),
        "rope_theta": _shortest(fields.get(f"{architecture}.rope.freq_base", 10000.0)),
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
    }


def _shortest(value: float) -> float:
    """The decimal number that was meant: GGUF stores F32, so 1e-5 comes back as 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _generation_config(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "do_sample": False,
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
    }


def _tokenizer(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE from GGUF's tokens, types and merges."""
    kind, pre = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise GgufUnsupported(path, f"tokenizer {kind!r} with pre-tokenizer {pre!r}")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token_type == _CONTROL,
        }
        for index, (token, token_type) in enumerate(zip(tokens, types, strict=True))
        if token_type in {_CONTROL, _USER_DEFINED}
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _PRE_TOKENIZERS[pre]},
        "post_processor": None,
        "decoder": _BYTE_LEVEL | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(fields: dict[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    named = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}.items()
        if f"tokenizer.ggml.{key}_token_id" in fields
    }
    return named | {
        "add_bos_token": fields.get("tokenizer.ggml.add_bos_token", False),
        "add_prefix_space": False,
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields[f"{fields['general.architecture']}.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
