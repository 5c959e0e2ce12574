"""Small checkpoints made on the fly: random weights by transformers, a tokenizer trained on a few lines."""

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


def build_reference(kind: str):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    common = {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "eos_token_id": [2, 0],
        "bos_token_id": None,
    }
    if kind == "llama":
        rope = {
            "rope_type": "llama3",
            "rope_theta": 50_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
        config = LlamaConfig(**common, head_dim=16, tie_word_embeddings=False, rope_parameters=rope)
        make = LlamaForCausalLM
    else:
        rope = {"rope_type": "default", "rope_theta": 1_000_000.0}
        config = Qwen2Config(**common, tie_word_embeddings=kind == "tied", rope_parameters=rope)
        make = Qwen2ForCausalLM
    torch.manual_seed(7)
    model = make(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if name.endswith("bias") or "norm" in name else 0.08
            parameter.normal_(1.0 if "norm" in name else 0.0, scale)
    return model


@pytest.fixture(scope="session", params=["tied", "untied", "llama"])
def checkpoint(request, tmp_path_factory):
    return make_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tied(tmp_path_factory):
    return make_checkpoint("tied", tmp_path_factory.mktemp("tied_only"))


def make_checkpoint(kind: str, path: Path) -> Checkpoint:
    reference = build_reference(kind)
    reference.save_pretrained(path)
    train_tokenizer(path)
    return Checkpoint(path, reference)


@pytest.fixture(scope="session")
def cpu():
    from reference_engine.device import Device

    return Device(0, "cpu")
