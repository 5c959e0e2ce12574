"""Every family against transformers on small random checkpoints; each row is a trap that some engine fell into."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from reference_engine.config import read_config
from reference_engine.errors import InvalidModel
from reference_engine.files import SideFiles
from reference_engine.model import SafeTensorsCudaModel

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
COMMON = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "dtype": "float32",
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ABSENT = object()
ROWS = {
    "Qwen2: explicit head_dim": ("Qwen2", {"head_dim": 16}),
    "Qwen2: window given and not switched on": ("Qwen2", {"sliding_window": 7, "use_sliding_window": False}),
    "Qwen2: window in late layers": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "Qwen2: switched on, first windowed layer after the last": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7},
    ),
    "Qwen2: switched on without a window": ("Qwen2", {"use_sliding_window": True, "sliding_window": None}),
    "Qwen2: layer_types overrule max_window_layers": (
        "Qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "Qwen2: null kv heads": ("Qwen2", {"num_key_value_heads": None}),
    "Qwen2: absent kv heads are 32": (
        "Qwen2",
        {"num_key_value_heads": ABSENT, "num_attention_heads": 64, "hidden_size": 128},
    ),
    "Qwen2: no theta": ("Qwen2", {}),
    "Qwen2: tied": ("Qwen2", {"tie_word_embeddings": True}),
    "Qwen3: norms before rotation": ("Qwen3", {"head_dim": 16, "rope_theta": 1e6}),
    "Qwen3: absent head_dim is 128": ("Qwen3", {"head_dim": ABSENT}),
    "Qwen3: biases": ("Qwen3", {"head_dim": 8, "attention_bias": True}),
    "Qwen3: tied, window in late layers": (
        "Qwen3",
        {
            "head_dim": 16,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 2,
        },
    ),
    "Llama 2: as many kv heads as heads, no theta": ("Llama", {"num_key_value_heads": ABSENT}),
    "Llama: theta beside the parameters": ("Llama", {"rope_theta": 500_000.0}),
    "Llama: theta in the parameters": (
        "Llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}, "rope_theta": 77.0},
    ),
    "Llama 3.1: rope_scaling": ("Llama", {"rope_scaling": LLAMA3, "rope_theta": 500_000.0}),
    "Llama 3.1: rope_parameters": ("Llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500_000.0}}),
    "Llama 3.1: scaling without original positions": (
        "Llama",
        {"rope_scaling": {key: LLAMA3[key] for key in LLAMA3 if not key.startswith("original")}},
    ),
    "Llama 3.1: original positions in both places": (
        "Llama",
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 32},
    ),
    "Llama 3.1: both spellings at once": (
        "Llama",
        {"rope_scaling": LLAMA3, "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    ),
    "Llama 3.2: tied, explicit head_dim": ("Llama", {"tie_word_embeddings": True, "head_dim": 16}),
    "Llama: attention biases, that after attention too": ("Llama", {"attention_bias": True}),
    "Llama: MLP biases": ("Llama", {"mlp_bias": True}),
    "Mistral: window": ("Mistral", {"sliding_window": 7}),
    "Mistral: window of one": ("Mistral", {"sliding_window": 1}),
    "Mistral: null window": ("Mistral", {"sliding_window": None}),
    "Mistral: absent window is 4096": ("Mistral", {}),
    "Mistral: absent kv heads are 8": (
        "Mistral",
        {"num_key_value_heads": ABSENT, "num_attention_heads": 16, "hidden_size": 64},
    ),
    "Mistral Nemo: explicit head_dim": ("Mistral", {"head_dim": 16, "sliding_window": None, "rope_theta": 1e6}),
}
PROMPT = [(31 * i * i + 7 * i) % 211 for i in range(40)]


def write_checkpoint(path, family, changes):
    fields = {"architectures": [f"{family}ForCausalLM"], "model_type": family.lower(), **COMMON, **changes}
    fields = {key: value for key, value in fields.items() if value is not ABSENT}
    (path / "config.json").write_text(json.dumps(fields))
    torch.manual_seed(5)
    reference = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(path), dtype=torch.float32
    )
    for name, values in reference.named_parameters():
        loud = 0.15 if name.endswith("proj.weight") else 0.4
        values.data.normal_(std=loud).add_(1.0 if "norm" in name else 0.0)
    tensors = {name: values.detach().contiguous() for name, values in reference.named_parameters()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=ROWS, ids=str)
def pair(request, tmp_path_factory, cpu):
    """transformers' model and ours of the same checkpoint."""
    path = tmp_path_factory.mktemp("family")
    reference = write_checkpoint(path, *ROWS[request.param])
    return reference, SafeTensorsCudaModel.from_safetensors(path, cpu)


def expected_logits(reference, ids):
    with torch.no_grad():
        return reference(torch.tensor([ids])).logits[0]


def test_logits_of_a_prompt_equal_those_of_transformers(pair):
    reference, model = pair
    found = model.logits(PROMPT)
    assert (found - expected_logits(reference, PROMPT)).abs().max() < TOLERANCE
    assert found.std() > 0.5, "a model that says nothing shows nothing"


def test_logits_of_steps_over_the_cache_equal_those_of_transformers(pair):
    reference, model = pair
    expected = expected_logits(reference, PROMPT)
    with model.decoder.begin(model, PROMPT[:4], len(PROMPT), None) as decoding:
        for position, token in enumerate(PROMPT[4:], 4):
            decoding.feed(token)
            assert (decoding.step() - expected[position]).abs().max() < TOLERANCE, position


def test_prompts_in_chunks_keep_their_window(pair, monkeypatch):
    reference, model = pair
    monkeypatch.setattr("reference_engine.model.PREFILL_CHUNK", 9)
    assert (model.logits(PROMPT) - expected_logits(reference, PROMPT)).abs().max() < TOLERANCE


@pytest.mark.parametrize("window", [6, 8, None])
def test_a_window_off_by_one_is_heard(tmp_path, cpu, window):
    reference = write_checkpoint(tmp_path, "Mistral", {"sliding_window": 7})
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "sliding_window": window}))
    wrong = SafeTensorsCudaModel.from_safetensors(tmp_path, cpu).logits(PROMPT)
    assert (wrong - expected_logits(reference, PROMPT)).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("family", "fields", "eos", "bos"),
    [
        ("Llama", {}, (2,), 1),
        ("Mistral", {}, (2,), 1),
        ("Llama", {"eos_token_id": None, "bos_token_id": None}, (), None),
        ("Llama", {"eos_token_id": [7, 9, 7]}, (7, 9), 1),
        ("Llama", {"eos_token_id": 0, "bos_token_id": 0}, (0,), 0),
        ("Qwen2", {}, (), None),
        ("Qwen3", {"eos_token_id": 5}, (5,), None),
    ],
)
def test_special_tokens_default_by_family(tmp_path, family, fields, eos, bos):
    fields = {"architectures": [f"{family}ForCausalLM"], **COMMON, **fields}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config = read_config(SideFiles(tmp_path))
    assert (config.eos_token_ids, config.bos_token_id) == (eos, bos)


def test_special_tokens_of_the_generation_config_take_the_place_of_defaults(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **COMMON}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [128001, 128009]}))
    assert read_config(SideFiles(tmp_path)).eos_token_ids == (128001, 128009)


@pytest.mark.parametrize("fields", [{"quantization_config": {"quant_method": "awq"}}, {"num_local_experts": 8}])
def test_nothing_is_allocated_for_what_is_refused(tmp_path, cpu, monkeypatch, fields):
    write_checkpoint(tmp_path, "Mistral", {})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    monkeypatch.setattr(type(cpu), "empty", lambda *_: pytest.fail("allocated"))
    with pytest.raises(InvalidModel, match=next(iter(fields))):
        SafeTensorsCudaModel.from_safetensors(tmp_path, cpu)


@pytest.mark.parametrize(
    ("family", "fields", "plain"),
    [
        ("Qwen2", {}, True),
        ("Llama", {}, True),
        ("Mistral", {"sliding_window": None}, True),
        ("Mistral", {"sliding_window": 7}, False),
        ("Llama", {"attention_bias": True}, False),
        ("Llama", {"mlp_bias": True}, False),
        ("Qwen3", {}, False),
        ("Qwen2", {"use_sliding_window": True, "max_window_layers": 2}, False),
    ],
)
def test_a_plain_block_has_nothing_that_only_some_families_have(tmp_path, family, fields, plain):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [f"{family}ForCausalLM"], **COMMON, **fields}))
    assert read_config(SideFiles(tmp_path)).is_plain is plain
