"""What config.json and generation_config.json say about a model, in both spellings that are in use.

Defaults are those of transformers' configuration classes, a family at a time; a field that is present and
malformed is an error, never a default. What would change the result and is not computed here is refused by name.
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
QWEN3 = "Qwen3ForCausalLM"
LLAMA = "LlamaForCausalLM"
MISTRAL = "MistralForCausalLM"
DEFAULT_ROPE_THETA = 10_000.0
DEFAULT_RMS_NORM_EPS = 1e-6
DEFAULT_WINDOW = 4096
DEFAULT_FULL_LAYERS = 28
MOST_LAYERS = 10_000
"""Far beyond any model; lists of layers are made before a tensor is looked for, and must stay small."""
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Family:
    """What a class of models has beyond the common block, and what its configuration defaults to.

    Attributes:
        model_type: The family's name in config.json.
        qkv_bias: Products of q, k and v have biases, whatever the configuration says.
        flags: Switches of the configuration that this family has: `attention_bias`, `mlp_bias`.
        qk_norm: Queries and keys are normalised head by head, before they are rotated.
        windows: Where a sliding window is configured: `never`, in `every` layer, or `late` ones if switched on.
        num_kv_heads: Where none are named; None is one for each query head.
        head_dim: Where none is named; None divides the hidden size by the heads.
        bos, eos: Token ids where none are named.
    """

    model_type: str
    qkv_bias: bool = False
    flags: tuple[str, ...] = ()
    qk_norm: bool = False
    windows: str = "never"
    num_kv_heads: int | None = None
    head_dim: int | None = None
    bos: int | None = None
    eos: int | None = None


FAMILIES = {
    QWEN2: Family("qwen2", qkv_bias=True, windows="late", num_kv_heads=32),
    QWEN3: Family("qwen3", flags=("attention_bias",), qk_norm=True, windows="late", num_kv_heads=32, head_dim=128),
    LLAMA: Family("llama", flags=("attention_bias", "mlp_bias"), bos=1, eos=2),
    MISTRAL: Family("mistral", windows="every", num_kv_heads=8, bos=1, eos=2),
}
# Signs of what this engine does not compute, whatever class name stands beside them.
REFUSED = {
    "compression_config": "quantized weights",
    "num_experts": "a mixture of experts",
    "num_local_experts": "a mixture of experts",
    "text_config": "a multimodal wrapper",
    "vision_config": "a multimodal wrapper",
    "audio_config": "a multimodal wrapper",
}


@dataclass(frozen=True)
class RopeScaling:
    """Frequency scaling of Llama 3.1 (`rope_type` "llama3"): long wavelengths are stretched by `factor`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@dataclass(frozen=True)
class ModelConfig:
    """The fields that decide what is computed.

    Attributes:
        qkv_bias: The products of q, k and v have biases.
        out_bias: The product after attention has one.
        mlp_bias: The three products of the MLP have biases.
        qk_norm: Queries and keys are normalised head by head, before they are rotated.
        windows: A layer each: how many positions a token sees, its own included; None is all up to its own.
    """

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
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool
    windows: tuple[int | None, ...]

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing beyond the common block with biases of q, k and v.

        A step with kernels of its own that knows only these must not be given anything else.
        """
        return not (self.out_bias or self.mlp_bias or self.qk_norm or any(self.windows))


def read_config(files: SideFiles) -> ModelConfig:
    """Read config.json and, where present, generation_config.json of a checkpoint.

    Raises:
        FileNotFound: There is no config.json.
        InvalidModel: A field is malformed, or asks for something this engine does not compute.
    """
    fields = _Fields(files.where(CONFIG), files.read_json(CONFIG))
    generation = _Fields(files.where(GENERATION), files.read_json(GENERATION) if GENERATION in files else {})
    architecture = _architecture(fields)
    family = FAMILIES[architecture]
    _refuse_unsupported(fields, family)
    heads, kv_heads, head_dim = _heads(fields, family)
    theta, scaling = _rope(fields)
    bos = _token_ids("bos_token_id", (fields, generation), family.bos)
    attention_bias = fields.flag("attention_bias", default=False)
    return ModelConfig(
        architecture=architecture,
        hidden_size=fields.count("hidden_size"),
        intermediate_size=fields.count("intermediate_size"),
        num_layers=fields.count("num_hidden_layers", most=MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=fields.count("vocab_size"),
        max_positions=fields.count("max_position_embeddings"),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=fields.number("rms_norm_eps", DEFAULT_RMS_NORM_EPS),
        tie_word_embeddings=fields.flag("tie_word_embeddings", default=False),
        eos_token_ids=_token_ids("eos_token_id", (fields, generation), family.eos),
        bos_token_id=bos[0] if bos else None,
        dtype=_dtype(fields),
        qkv_bias=family.qkv_bias or attention_bias,
        out_bias=attention_bias,
        mlp_bias=fields.flag("mlp_bias", default=False),
        qk_norm=family.qk_norm,
        windows=_windows(fields, family),
    )


def _architecture(fields: _Fields) -> str:
    names = fields.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        fields.fail("architectures", "it must be a list with the model's class name")
    if names[0] not in FAMILIES:
        fields.fail("architectures", f"{quote(names[0])} is not supported; this engine runs {', '.join(FAMILIES)}")
    kind = fields.get("model_type", FAMILIES[names[0]].model_type)
    if kind != FAMILIES[names[0]].model_type:
        fields.fail("model_type", f"{quote(str(kind))} is not that of {names[0]}")
    return str(names[0])


def _heads(fields: _Fields, family: Family) -> tuple[int, int, int]:
    """Query heads, key-value heads, and the size of each."""
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    # Null is one for each query head; what an absent number stands for, each family has its own.
    kv_default = heads if fields.is_null("num_key_value_heads") else family.num_kv_heads or heads
    kv_heads = fields.count("num_key_value_heads", kv_default)
    head_dim = fields.count("head_dim", family.head_dim or max(1, hidden // heads))
    if heads % kv_heads:
        fields.fail("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads {heads}")
    if head_dim % 2:
        fields.fail("head_dim", f"{head_dim} is odd, rotary embedding needs pairs")
    if "head_dim" not in fields and family.head_dim is None and hidden % heads:
        fields.fail("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    return heads, kv_heads, head_dim


def _windows(fields: _Fields, family: Family) -> tuple[int | None, ...]:
    """The sliding window of each layer."""
    layers = fields.count("num_hidden_layers", most=MOST_LAYERS)
    window: int | None = None
    if family.windows == "every" and not fields.is_null("sliding_window"):
        window = fields.count("sliding_window", DEFAULT_WINDOW)
    if fields.flag("use_sliding_window", default=False) and not fields.is_null("sliding_window"):
        window = fields.count("sliding_window", DEFAULT_WINDOW)
    first = 0
    if family.windows == "late" and window is not None and "layer_types" not in fields:
        first = fields.count("max_window_layers", DEFAULT_FULL_LAYERS, least=0)
    kinds = fields.get("layer_types", [FULL if window is None or layer < first else SLIDING for layer in range(layers)])
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in (FULL, SLIDING) for kind in kinds):
        fields.fail("layer_types", f"it must name {FULL} or {SLIDING} for each of {layers} layers")
    if SLIDING in kinds and window is None:
        fields.fail("layer_types", f"{SLIDING} without a window")
    if family.windows == "every" and window is not None and FULL in kinds:
        fields.fail("layer_types", f"{FULL} in some layers is not supported for {family.model_type}")
    return tuple(window if kind == SLIDING else None for kind in kinds)


def _refuse_unsupported(fields: _Fields, family: Family) -> None:
    """Settings that would change the result, were they ignored."""
    if fields.get("hidden_act", "silu") != "silu":
        fields.fail("hidden_act", "only silu is supported")
    unheard = {"attention_bias", "mlp_bias"} - set(family.flags)
    if family.windows != "late":
        unheard.add("use_sliding_window")
    for name in sorted(unheard):
        if fields.flag(name, default=False):
            fields.fail(name, f"true is not supported for {family.model_type}")
    if "quantization_config" in fields:
        method = fields.section("quantization_config").get("quant_method", "unnamed")
        fields.fail("quantization_config", f"quantized weights ({quote(str(method))}) are not supported")
    for name, what in REFUSED.items():
        if name in fields:
            fields.fail(name, f"it speaks of {what}, which this engine does not run")


def _token_ids(name: str, files: tuple[_Fields, _Fields], default: int | None) -> tuple[int, ...]:
    """The ids that either file names; the family's own where config.json does not even say that there is none."""
    config, generation = files
    own = [] if default is None or name in config or config.is_null(name) or name in generation else [default]
    return tuple(dict.fromkeys((*config.token_ids(name), *generation.token_ids(name), *own)))


def _rope(fields: _Fields) -> tuple[float, RopeScaling | None]:
    """Theta and scaling: from `rope_scaling` (old), which wins, or `rope_parameters` (new), and `rope_theta`."""
    rope = fields.section("rope_scaling")
    if not rope.raw:
        rope = fields.section("rope_parameters")
    theta = rope.number("rope_theta", fields.number("rope_theta", DEFAULT_ROPE_THETA))
    for section in (fields, rope):
        if section.number("partial_rotary_factor", 1.0) != 1.0:
            section.fail("partial_rotary_factor", "only 1.0 is supported")
    nested = [name for name, value in rope.raw.items() if isinstance(value, dict)]
    if nested:
        rope.fail(nested[0], "rotary embedding that differs between layers is not supported")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        rope.fail("rope_type", f"{quote(str(kind))} is not supported; this engine has default and llama3")
    positions = rope.count("original_max_position_embeddings", fields.count("max_position_embeddings"))
    return theta, RopeScaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        # Where both places name it, transformers takes the one beside `rope_scaling`, not the one in it.
        original_positions=fields.count("original_max_position_embeddings", positions),
    )


def _dtype(fields: _Fields) -> str:
    name = fields.get("dtype", fields.get("torch_dtype"))
    if name is None:
        return ""
    if not isinstance(name, str) or name not in DTYPES:
        fields.fail("dtype", f"{quote(str(name))} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


class _Fields:
    """Typed access to a JSON object; null counts as absent, but for the few fields where `is_null` tells."""

    def __init__(self, path: str, raw: Mapping[str, Any], prefix: str = "") -> None:
        self.path = path
        self.prefix = prefix
        self.raw = {key: value for key, value in raw.items() if value is not None}
        self._nulls = raw.keys() - self.raw.keys()

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def is_null(self, name: str) -> bool:
        return name in self._nulls

    def get(self, name: str, default: Any = None) -> Any:
        return self.raw.get(name, default)

    def count(self, name: str, default: int | None = None, least: int = 1, most: int = 2**31 - 1) -> int:
        value = self._required(name, default)
        if type(value) is not int or not least <= value <= most:
            self.fail(name, f"{quote(str(value))} is not an integer of at least {least} and at most {most}")
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
