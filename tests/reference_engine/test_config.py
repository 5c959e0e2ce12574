"""config.json in its spellings, and every field malformed in turn."""

from __future__ import annotations

import json

import pytest

from reference_engine.config import RopeScaling, read_config
from reference_engine.errors import FileNotFound, InvalidModel
from reference_engine.files import SideFiles

BASE = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "eos_token_id": 5,
    "torch_dtype": "bfloat16",
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(directory, generation=None, **changes):
    fields = {key: value for key, value in {**BASE, **changes}.items() if value != "absent"}
    (directory / "config.json").write_text(json.dumps(fields))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return read_config(SideFiles(directory))


def test_old_spelling(tmp_path):
    config = read(tmp_path)
    assert (config.rope_theta, config.dtype, config.eos_token_ids, config.head_dim) == (1e6, "BF16", (5,), 16)
    assert config.qkv_bias
    assert config.tie_word_embeddings


def test_new_spelling(tmp_path):
    rope = {"rope_type": "default", "rope_theta": 2e6}
    config = read(tmp_path, rope_theta="absent", rope_parameters=rope, torch_dtype="absent", dtype="float16")
    assert (config.rope_theta, config.rope_scaling, config.dtype) == (2e6, None, "F16")


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_llama3_scaling_in_both_spellings(tmp_path, key):
    config = read(tmp_path, architectures=["LlamaForCausalLM"], **{key: LLAMA3})
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=8192)
    assert config.rope_scaling == scaling
    assert not config.qkv_bias


def test_eos_ids_are_the_union_of_both_files(tmp_path):
    config = read(tmp_path, {"eos_token_id": [7, 5], "bos_token_id": 3}, eos_token_id=[5, 6])
    assert config.eos_token_ids == (5, 6, 7)
    assert config.bos_token_id == 3


def test_null_counts_as_absent(tmp_path):
    config = read(tmp_path, head_dim=None, num_key_value_heads=None, eos_token_id=None, rope_scaling=None)
    assert (config.head_dim, config.num_kv_heads, config.eos_token_ids) == (16, 4, ())


def test_head_dim_need_not_be_hidden_over_heads(tmp_path):
    assert read(tmp_path, head_dim=32).head_dim == 32


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architectures", "absent"),
        ("architectures", []),
        ("architectures", "Qwen2ForCausalLM"),
        ("architectures", ["MixtralForCausalLM"]),
        ("architectures", ["Qwen2MoeForCausalLM"]),
        ("architectures", ["Qwen2_5_VLForConditionalGeneration"]),
        ("architectures", ["Gemma3ForCausalLM"]),
        ("model_type", "qwen2_moe"),
        ("num_experts", 8),
        ("num_local_experts", 8),
        ("vision_config", {}),
        ("text_config", {"hidden_size": 64}),
        ("hidden_size", "absent"),
        ("hidden_size", 0),
        ("hidden_size", -64),
        ("hidden_size", 64.0),
        ("hidden_size", "64"),
        ("hidden_size", True),
        ("hidden_size", 66),
        ("hidden_size", 2**40),
        ("num_hidden_layers", None),
        ("num_hidden_layers", 2**31 - 1),
        ("num_key_value_heads", 3),
        ("head_dim", 15),
        ("rms_norm_eps", "1e-6"),
        ("rms_norm_eps", 0),
        ("rope_theta", -1),
        ("rope_theta", [1]),
        ("rope_parameters", 3),
        ("rope_parameters", {"rope_type": "default", "rope_theta": "1e6"}),
        ("rope_scaling", {"type": "yarn", "factor": 4.0}),
        ("rope_scaling", {"rope_type": "longrope"}),
        ("rope_scaling", {"type": "dynamic", "factor": 2.0}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_parameters", {"full_attention": {"rope_type": "default"}, "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("rope_scaling", {"rope_type": "llama3"}),
        ("tie_word_embeddings", "true"),
        ("eos_token_id", "5"),
        ("eos_token_id", [5, -1]),
        ("eos_token_id", [[5]]),
        ("torch_dtype", "int8"),
        ("hidden_act", "gelu"),
        ("use_sliding_window", "true"),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["full_attention", "chunked_attention"]),
        ("layer_types", "full_attention"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("quantization_config", {"bits": 4}),
        ("quantization_config", {"quant_method": "gptq"}),
        ("quantization_config", 8),
        ("compression_config", {"format": "float-quantized"}),
        ("partial_rotary_factor", 0.5),
    ],
)
def test_malformed_or_unsupported_field_is_named(tmp_path, field, value):
    with pytest.raises(InvalidModel) as caught:
        read(tmp_path, **{field: value})
    told = {"rope_parameters": "rope_", "torch_dtype": "dtype"}.get(field, field)
    assert told in caught.value.cause
    assert caught.value.path.endswith("config.json")


def test_absent_config_and_config_that_is_no_object(tmp_path):
    with pytest.raises(FileNotFound, match=r"config\.json"):
        read_config(SideFiles(tmp_path))
    for text in ("", "[1]", "{", '{"hidden_size": Infinity}', '{"a":' * 50_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InvalidModel):
            read_config(SideFiles(tmp_path))


def test_a_multimodal_wrapper_is_called_so_and_not_incomplete(tmp_path):
    with pytest.raises(InvalidModel, match="multimodal"):
        read(tmp_path, hidden_size="absent", text_config={"hidden_size": 64})


@pytest.mark.parametrize(
    "rope", [{"rope_type": "default", "factor": 8.0}, {"rope_type": "llama3", "beta_fast": 32.0} | LLAMA3]
)
def test_what_is_said_of_the_rotation_and_not_known_is_refused(tmp_path, rope):
    with pytest.raises(InvalidModel, match="rope_parameters"):
        read(tmp_path, rope_parameters=rope)


def test_stop_ids_of_the_generation_config_are_checked_as_its_own(tmp_path):
    with pytest.raises(InvalidModel, match="generation_config"):
        read(tmp_path, {"eos_token_id": "5"})


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_a_quantized_checkpoint_is_refused_by_its_method(tmp_path, method):
    with pytest.raises(InvalidModel, match=method):
        read(tmp_path, quantization_config={"quant_method": method})


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Llama", {"use_sliding_window": True}),
        ("Llama", {"layer_types": ["sliding_attention"] * 2}),
        ("Mistral", {"attention_bias": True}),
        ("Mistral", {"mlp_bias": True}),
        ("Mistral", {"sliding_window": 0}),
        ("Mistral", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("Mistral", {"use_sliding_window": True}),
        ("Qwen3", {"mlp_bias": True}),
        ("Qwen3", {"use_sliding_window": True, "sliding_window": "8"}),
        ("Qwen3", {"use_sliding_window": True, "max_window_layers": -1}),
        ("Qwen3", {"layer_types": ["sliding_attention"] * 2}),
    ],
)
def test_what_a_family_does_not_have_is_refused(tmp_path, name, fields):
    with pytest.raises(InvalidModel) as caught:
        read(tmp_path, architectures=[f"{name}ForCausalLM"], **fields)
    assert any(field in caught.value.cause for field in fields)
