"""Small checkpoints made on the fly: seeded random weights, and a tokenizer trained on a few lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
VOCAB = 517
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "hello world, how are you today?",
    "2+2=4 and 3+3=6",
    "où est la bibliothèque",
    "日本語のテキスト",
    "привет мир",
]


class Checkpoint(NamedTuple):
    path: Path
    reference: Any


def train_tokenizer(path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in specials],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"chat_template": CHATML, "eos_token": "<|im_end|>", "bos_token": None}
    (path / "tokenizer_config.json").write_text(json.dumps(config))


def config_of(kind: str) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0}
    if kind == "llama":
        rope = {
            "rope_type": "llama3",
            "rope_theta": 50_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    return {
        "architectures": ["LlamaForCausalLM" if kind == "llama" else "Qwen2ForCausalLM"],
        "model_type": "llama" if kind == "llama" else "qwen2",
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16 if kind == "llama" else 8,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope,
        "tie_word_embeddings": kind == "tied",
        "eos_token_id": [2, 0],
        "dtype": "float32",
    }


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, wide, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    rows = {"q_proj": config["num_attention_heads"] * size, "k_proj": config["num_key_value_heads"] * size}
    rows["v_proj"] = rows["k_proj"]
    shapes = {"model.embed_tokens.weight": (VOCAB, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCAB, hidden)
    for layer in (f"model.layers.{index}" for index in range(config["num_hidden_layers"])):
        for name, count in rows.items():
            shapes[f"{layer}.self_attn.{name}.weight"] = (count, hidden)
            if config["model_type"] == "qwen2":
                shapes[f"{layer}.self_attn.{name}.bias"] = (count,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, rows["q_proj"])
        shapes |= {f"{layer}.mlp.{name}.weight": (wide, hidden) for name in ("gate_proj", "up_proj")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, wide)
        shapes |= {f"{layer}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    return shapes


def make_checkpoint(kind: str, path: Path) -> Path:
    """Weights of seeded noise, large enough that every part of the model is heard in the logits."""
    import torch
    from safetensors.torch import save_file

    config = config_of(kind)
    noise = torch.Generator().manual_seed(7)
    tensors = {}
    for name, shape in shapes_of(config).items():
        loud = 0.3 if len(shape) == 1 else 0.08
        tensors[name] = torch.randn(shape, generator=noise) * loud + ("norm" in name)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    train_tokenizer(path)
    return path


def with_reference(path: Path) -> Checkpoint:
    import torch
    from transformers import AutoModelForCausalLM

    return Checkpoint(path, AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval())


@pytest.fixture(scope="session", params=["tied", "untied", "llama"])
def checkpoint(request, tmp_path_factory):
    return with_reference(make_checkpoint(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="session")
def tied(tmp_path_factory):
    return with_reference(make_checkpoint("tied", tmp_path_factory.mktemp("tied_only")))


@pytest.fixture(scope="session")
def cpu():
    from reference_engine.device import Device

    return Device(0, "cpu")


@pytest.fixture
def make():
    """Make a checkpoint of a kind in a directory."""
    return make_checkpoint
