"""A small Qwen2 checkpoint with seeded random weights and a tokenizer of its own.

It knows nothing, and it exercises everything a wrong engine gets wrong: grouped heads, biases that matter,
rope theta 1e6, a vocabulary padded beyond the tokenizer, two eos ids, tied embeddings. The checkpoint in
`random/` was written by `write_random_model`, and a test holds the two together.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from conformance.corpus.seeded_weights import Gains, qwen2_plans, seeded_values, spread
from conformance.corpus.weights_file import write_tensors

SEED = 11
TOKENIZER_SIZE = 416
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": TOKENIZER_SIZE - 3,
    "eos_token_id": TOKENIZER_SIZE - 1,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 160,
    "max_position_embeddings": 4096,
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 448,
}
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEXT = Path(__file__).with_name("tokenizer_text.txt")

# Each layer changes the residual stream more than it finds in it, so that greedy output depends on the context
# instead of repeating the last token; margins are of order one.
GAINS = Gains(
    embedding=0.35,
    query_key=1.8,
    value=2.0,
    output=1.0,
    gate=1.5,
    up=1.0,
    down=2.0,
    query_key_bias=0.7,
    value_bias=0.2,
    final_norm=2.0,
)


def write_random_model(directory: Path, seed: int = SEED) -> None:
    """Write the whole checkpoint; the same seed gives the same bytes on every machine."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    write_tensors(directory / "model.safetensors", _weights(tokenizer, seed))
    eos_ids = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    _write_json(directory / "config.json", CONFIG)
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": eos_ids[1], "do_sample": False, "eos_token_id": eos_ids, "pad_token_id": eos_ids[1]},
    )
    _write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "model_max_length": CONFIG["max_position_embeddings"],
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.read_text(encoding="utf-8").splitlines(), trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _weights(tokenizer: Tokenizer, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    plans = qwen2_plans(CONFIG)
    weights = {
        name: seeded_values(name, 0, math.prod(plan.shape), spread(name, plan.shape, GAINS), seed).reshape(plan.shape)
        for name, plan in plans.items()
    }
    _quieten(weights["model.embed_tokens.weight"], tokenizer)
    return weights


def _quieten(rows: npt.NDArray[np.float32], tokenizer: Tokenizer) -> None:
    """Make rows [vocab, hidden] faint for tokens that are no text of their own, and zero beyond the tokenizer.

    With tied weights a faint row never has the largest logit, so generated text is always valid UTF-8 and
    holds neither control characters nor a turn's beginning, which nobody trained this model to avoid.
    """
    rows[tokenizer.get_vocab_size() :] = 0
    for index in range(tokenizer.get_vocab_size()):
        if not _may_be_said(tokenizer, index):
            rows[index] *= np.float32(0.1)


def _may_be_said(tokenizer: Tokenizer, index: int) -> bool:
    if tokenizer.id_to_token(index) in ("<|im_end|>", "<|endoftext|>"):
        return True
    text = tokenizer.decode([index])
    return bool(text) and text.isascii() and text.isprintable()
