"""The geometry checkpoint: Qwen2.5-1.5B's exact shapes with seeded random weights, for load, memory and speed.

Made on the machine that needs it, in seconds, and kept in the cache. It has no tokenizer: prompts go as ids.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.corpus.cache import ContentChanged, cached
from conformance.corpus.checkpoint import file_sha256
from conformance.corpus.seeded_weights import Gains, qwen2_plans, seeded_pieces
from conformance.corpus.weights_file import write_weights

VERSION = 1
SEED = 1_500_000_000
QWEN2_5_1_5B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
GOLDENS = Path(__file__).with_name("geometry_goldens")
CASES = Path(__file__).with_name("geometry_cases.toml")
# Greedy output varies with the context and logits have a deviation of about 4, so that rounding in F32 stays
# below 1e-4; in BF16 the top two often lie within rounding, as in a real model.
GAINS = Gains(
    embedding=0.1,
    query_key=1.0,
    value=1.0,
    output=1.0,
    gate=1.0,
    up=1.0,
    down=1.5,
    query_key_bias=0.5,
    value_bias=0.1,
    final_norm=1.0,
)
WEIGHTS_SHA256 = {
    "F32": "ca7bf720bf11128a69d5b92f24c7d259f317de32934267fff4de9f3617492f55",
    "BF16": "9af4c9190acbfbd3c50e376057de4a0fa68f3b924c568abcd0d979288ef88071",
}
_TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def geometry_checkpoint(dtype: str = "F32", config: Mapping[str, Any] | None = None, seed: int = SEED) -> Path:
    """The checkpoint's directory in the cache, in F32 or BF16 (the F32 values rounded to nearest even).

    Args:
        dtype: F32 or BF16.
        config: The fields of config.json; Qwen2.5-1.5B's by default (6.2 GB in F32).
        seed: Of all weights.

    Raises:
        ContentChanged: This machine draws other numbers than the one where the goldens were made.
    """
    expected = WEIGHTS_SHA256[dtype] if config is None and seed == SEED else None
    shape = dict(config or QWEN2_5_1_5B) | {"torch_dtype": _TORCH_NAMES[dtype]}
    what = json.dumps([VERSION, seed, shape, repr(GAINS)], sort_keys=True)
    key = hashlib.sha256(what.encode()).hexdigest()[:16]
    return cached(
        f"geometry-{dtype.lower()}-{key}",
        lambda directory: _build(directory, dtype, shape, seed, expected),
        origin=f"seeded random weights, seed {seed}",
    )


def _build(directory: Path, dtype: str, config: Mapping[str, Any], seed: int, expected: str | None) -> None:
    write_geometry(directory, dtype, config, seed)
    found = file_sha256(directory / "model.safetensors")
    if expected is not None and found != expected:
        raise ContentChanged(f"the geometry checkpoint in {dtype}", expected, found)


def write_geometry(directory: Path, dtype: str, config: Mapping[str, Any], seed: int = SEED) -> None:
    """Write config.json, generation_config.json and model.safetensors, on as many threads as there are CPUs."""
    plans = qwen2_plans(config, dtype)
    pieces = seeded_pieces(plans, GAINS, seed)
    write_weights(directory / "model.safetensors", plans, pieces, threads=len(os.sched_getaffinity(0)))
    ends = [config["eos_token_id"], config["bos_token_id"]]
    generation = {"bos_token_id": config["bos_token_id"], "do_sample": False, "eos_token_id": ends}
    for name, content in (("config.json", dict(config)), ("generation_config.json", generation)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
