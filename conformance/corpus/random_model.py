"""A small Qwen2 checkpoint with seeded random weights and a tokenizer of its own.

It knows nothing, and it exercises everything a wrong engine gets wrong: grouped heads, biases that matter,
rope theta 1e6, a vocabulary padded beyond the tokenizer, two eos ids, tied embeddings. The checkpoint in
`random/` was written by `write_random_model`, and a test holds the two together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SEED = 15
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

Weights = dict[str, npt.NDArray[np.float32]]


def write_random_model(directory: Path, seed: int = SEED) -> None:
    """Write the whole checkpoint; the same seed gives the same bytes on every machine."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    content = save(random_weights(tokenizer, seed), metadata={"format": "pt"})
    (directory / "model.safetensors").write_bytes(content)
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


def random_weights(tokenizer: Tokenizer, seed: int = SEED) -> Weights:
    """Seeded F32 weights under the checkpoint's names, [out, in] as the format has them.

    Gains are chosen so that each layer changes the residual stream about as much as it finds in it: greedy
    output then depends on the context instead of repeating the last token, with margins of order one.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    hidden, ffn = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    kv = hidden * CONFIG["num_key_value_heads"] // CONFIG["num_attention_heads"]
    weights = {
        "model.embed_tokens.weight": _embedding(generator, tokenizer),
        "model.norm.weight": _normal(generator, (hidden,), 0.2) + np.float32(2),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        gains = {
            "self_attn.q_proj": ((hidden, hidden), 1.8),
            "self_attn.k_proj": ((kv, hidden), 1.8),
            "self_attn.v_proj": ((kv, hidden), 2.0),
            "self_attn.o_proj": ((hidden, hidden), 1.0),
            "mlp.gate_proj": ((ffn, hidden), 1.5),
            "mlp.up_proj": ((ffn, hidden), 1.0),
            "mlp.down_proj": ((hidden, ffn), 2.0),
        }
        for name, (shape, gain) in gains.items():
            weights[f"{prefix}{name}.weight"] = _normal(generator, shape, gain / shape[1] ** 0.5)
        for name, (width, scale) in {"q": (hidden, 0.7), "k": (kv, 0.7), "v": (kv, 0.2)}.items():
            weights[f"{prefix}self_attn.{name}_proj.bias"] = _normal(generator, (width,), scale)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = _normal(generator, (hidden,), 0.2) + np.float32(1)
    return weights


def _normal(generator: np.random.Generator, shape: tuple[int, ...], scale: float) -> npt.NDArray[np.float32]:
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def _embedding(generator: np.random.Generator, tokenizer: Tokenizer) -> npt.NDArray[np.float32]:
    """Rows [vocab, hidden]: faint for tokens that are no text of their own, zero beyond the tokenizer.

    With tied weights a faint row never has the largest logit, so generated text is always valid UTF-8 and
    holds neither control characters nor a turn's beginning, which nobody trained this model to avoid.
    """
    rows = _normal(generator, (CONFIG["vocab_size"], CONFIG["hidden_size"]), 0.35)
    for index in range(CONFIG["vocab_size"]):
        if index >= tokenizer.get_vocab_size():
            rows[index] = 0
        elif not _may_be_said(tokenizer, index):
            rows[index] *= np.float32(0.1)
    return rows


def _may_be_said(tokenizer: Tokenizer, index: int) -> bool:
    if tokenizer.id_to_token(index) in ("<|im_end|>", "<|endoftext|>"):
        return True
    text = tokenizer.decode([index])
    return bool(text) and text.isascii() and text.isprintable()
