"""What config.json and generation_config.json say about a model, in both spellings that are in use.

Defaults are those of transformers' `Qwen2Config` and `LlamaConfig`; a field that is present and malformed
is an error, never a default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from reference_engine.errors import InvalidModel, quote
from reference_engine.files import CONFIG, GENERATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reference_engine.files import SideFiles

QWEN2 = "Qwen2ForCausalLM"
LLAMA = "LlamaForCausalLM"
DEFAULT_ROPE_THETA = 10_000.0
DEFAULT_RMS_NORM_EPS = 1e-6
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class RopeScaling:
    """Frequency scaling of Llama 3.1 (`rope_type` "llama3"): long wavelengths are stretched by `factor`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@dataclass(frozen=True)
class ModelConfig:
    """The fields that decide what is computed."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    rms_norm_eps: float
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    dtype: str

    @property
    def qkv_bias(self) -> bool:
        """Whether the q, k and v projections have biases (Qwen2 always, Llama never)."""
        return self.architecture == QWEN2


def read_config(files: SideFiles) -> ModelConfig:
    """Read config.json and, where present, generation_config.json of a checkpoint.

    Raises:
        FileNotFound: There is no config.json.
        InvalidModel: A field is malformed, or asks for something this engine does not compute.
    """
    fields = _Fields(files.where(CONFIG), files.read_json(CONFIG))
    generation = _Fields(files.where(GENERATION), files.read_json(GENERATION) if GENERATION in files else {})
    architecture = _architecture(fields)
    _refuse_unsupported(fields)
    hidden = fields.count("hidden_size")
    heads, kv_heads, head_dim = _heads(fields, hidden)
    theta, scaling = _rope(fields)
    eos = dict.fromkeys((*fields.token_ids("eos_token_id"), *generation.token_ids("eos_token_id")))
    bos = (*fields.token_ids("bos_token_id"), *generation.token_ids("bos_token_id"))
    return ModelConfig(
        architecture=architecture,
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_layers=fields.count("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=fields.count("vocab_size"),
        max_positions=fields.count("max_position_embeddings"),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=fields.number("rms_norm_eps", DEFAULT_RMS_NORM_EPS),
        tie_word_embeddings=fields.flag("tie_word_embeddings", default=False),
        eos_token_ids=tuple(eos),
        bos_token_id=bos[0] if bos else None,
        dtype=_dtype(fields),
    )


def _architecture(fields: _Fields) -> str:
    names = fields.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        fields.fail("architectures", "it must be a list with the model's class name")
    if names[0] not in {QWEN2, LLAMA}:
        fields.fail("architectures", f"{quote(names[0])} is not supported; this engine runs {QWEN2} and {LLAMA}")
    return str(names[0])


def _heads(fields: _Fields, hidden: int) -> tuple[int, int, int]:
    """Query heads, key-value heads, and the size of each."""
    heads = fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads)
    head_dim = fields.count("head_dim", max(1, hidden // heads))
    if heads % kv_heads:
        fields.fail("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads {heads}")
    if head_dim % 2:
        fields.fail("head_dim", f"{head_dim} is odd, rotary embedding needs pairs")
    if "head_dim" not in fields and hidden % heads:
        fields.fail("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    return heads, kv_heads, head_dim


def _refuse_unsupported(fields: _Fields) -> None:
    """Settings that would change the result, were they ignored."""
    if fields.get("hidden_act", "silu") != "silu":
        fields.fail("hidden_act", "only silu is supported")
    for name in ("use_sliding_window", "attention_bias", "mlp_bias"):
        if fields.flag(name, default=False):
            fields.fail(name, "true is not supported")
    layer_types = fields.get("layer_types", [])
    if not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types):
        fields.fail("layer_types", "only full_attention is supported")
    if fields.get("quantization_config") is not None:
        fields.fail("quantization_config", "quantized weights are not supported")
    if fields.number("partial_rotary_factor", 1.0) != 1.0:
        fields.fail("partial_rotary_factor", "only 1.0 is supported")


def _rope(fields: _Fields) -> tuple[float, RopeScaling | None]:
    """Theta and scaling from `rope_parameters` (new) or `rope_theta` and `rope_scaling` (old)."""
    rope = fields.section("rope_parameters")
    scaling = rope if "rope_type" in rope else fields.section("rope_scaling")
    theta = fields.number("rope_theta", DEFAULT_ROPE_THETA)
    theta = rope.number("rope_theta", theta)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        scaling.fail("rope_type", f"{quote(str(kind))} is not supported; this engine has default and llama3")
    original = fields.get("original_max_position_embeddings")
    return theta, RopeScaling(
        factor=scaling.number("factor"),
        low_freq_factor=scaling.number("low_freq_factor"),
        high_freq_factor=scaling.number("high_freq_factor"),
        original_positions=scaling.count("original_max_position_embeddings", original),
    )


def _dtype(fields: _Fields) -> str:
    name = fields.get("dtype", fields.get("torch_dtype"))
    if name is None:
        return ""
    if not isinstance(name, str) or name not in DTYPES:
        fields.fail("dtype", f"{quote(str(name))} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


class _Fields:
    """Typed access to a JSON object; null counts as absent, as it does in transformers."""

    def __init__(self, path: str, raw: Mapping[str, Any], prefix: str = "") -> None:
        self.path = path
        self.prefix = prefix
        self.raw = {key: value for key, value in raw.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def get(self, name: str, default: Any = None) -> Any:
        return self.raw.get(name, default)

    def count(self, name: str, default: int | None = None) -> int:
        value = self._required(name, default)
        if type(value) is not int or not 0 < value < 2**31:
            self.fail(name, f"{quote(str(value))} is not a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._required(name, default)
        if type(value) not in {int, float} or not 0 < value < math.inf:
            self.fail(name, f"{quote(str(value))} is not a positive number")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.get(name, default)
        if type(value) is not bool:
            self.fail(name, f"{quote(str(value))} is neither true nor false")
        return value

    def token_ids(self, name: str) -> list[int]:
        value = self.get(name, [])
        ids = value if isinstance(value, list) else [value]
        if any(type(token) is not int or token < 0 for token in ids):
            self.fail(name, f"{quote(str(value))} is neither a token id nor a list of them")
        return ids

    def section(self, name: str) -> _Fields:
        value = self.get(name, {})
        if not isinstance(value, dict):
            self.fail(name, "it must be an object")
        return _Fields(self.path, value, f"{self.prefix}{name}.")

    def _required(self, name: str, default: Any) -> Any:
        value = self.get(name, default)
        if value is None:
            self.fail(name, "it is missing")
        return value

    def fail(self, name: str, cause: str) -> NoReturn:
        raise InvalidModel(self.path, f"{self.prefix}{name}: {cause}")
