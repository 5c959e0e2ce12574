"""What config.json and generation_config.json say about a model, in both spellings that are in use.

Defaults are those of transformers' configuration classes, a family at a time; a field that is present and
malformed is an error, never a default. What would change the result and is not computed here is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from msgspec import Meta, Struct, field, structs

from reference_engine.errors import InvalidModel, quote
from reference_engine.files import CONFIG, GENERATION, SideFiles, typed

QWEN2 = "Qwen2ForCausalLM"
QWEN3 = "Qwen3ForCausalLM"
LLAMA = "LlamaForCausalLM"
MISTRAL = "MistralForCausalLM"
# Far beyond any model; lists of layers are made before a tensor is looked for, and must stay small.
MOST_LAYERS = 10_000
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
FULL, SLIDING = "full_attention", "sliding_attention"
Count = Annotated[int, Meta(ge=1, lt=2**31)]
Positive = Annotated[float, Meta(gt=0)]
TokenId = Annotated[int, Meta(ge=0)]
TokenIds = TokenId | list[TokenId] | None
Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Family:
    """What a class of models has beyond the common block, and what its configuration defaults to.

    Attributes:
        model_type: The family's name in config.json.
        defaults: Fields of config.json where they are not named.
        qkv_bias: Products of q, k and v have biases, whatever the configuration says.
        flags: Switches of the configuration that this family has.
        qk_norm: Queries and keys are normalised head by head, before they are rotated.
    """

    model_type: str
    defaults: dict[str, Any]
    flags: tuple[str, ...] = ()
    qkv_bias: bool = False
    qk_norm: bool = False


_QWEN = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2}
_MISTRAL = {**_ENDS, "num_key_value_heads": 8, "sliding_window": 4096}
FAMILIES = {
    QWEN2: Family("qwen2", _QWEN, ("use_sliding_window",), qkv_bias=True),
    QWEN3: Family("qwen3", {**_QWEN, "head_dim": 128}, ("use_sliding_window", "attention_bias"), qk_norm=True),
    LLAMA: Family("llama", _ENDS, ("attention_bias", "mlp_bias")),
    MISTRAL: Family("mistral", _MISTRAL),
}
# Null is another answer than silence: none, where an absent field stands for the family's default.
NULLABLE = {"num_key_value_heads", "sliding_window", "bos_token_id", "eos_token_id"}
# Signs of what this engine does not compute, whatever class name stands beside them.
REFUSED = {
    "quantized weights": ("compression_config",),
    "a mixture of experts": ("num_experts", "num_local_experts"),
    "a multimodal wrapper": ("text_config", "vision_config", "audio_config"),
}


class Rope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rope_type", tag="default"):
    """Rotary embedding, the same for all layers; the old name of `rope_type` is `type`."""

    type: str = ""
    rope_theta: Positive | None = None
    partial_rotary_factor: float = 1.0


class RopeScaling(Rope, frozen=True, kw_only=True, tag="llama3"):
    """Frequency scaling of Llama 3.1: long wavelengths are stretched by `factor`."""

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_positions: Count = field(name="original_max_position_embeddings", default=0)


class _Sizes(Struct, frozen=True, kw_only=True):
    """Fields of config.json that are taken as they are."""

    hidden_size: Count
    intermediate_size: Count
    num_layers: Annotated[int, Meta(ge=1, le=MOST_LAYERS)] = field(name="num_hidden_layers")
    num_heads: Count = field(name="num_attention_heads")
    vocab_size: Count
    max_positions: Count = field(name="max_position_embeddings")
    rms_norm_eps: Positive = 1e-6
    tie_word_embeddings: bool = False
    mlp_bias: bool = False


class ModelConfig(_Sizes, frozen=True, kw_only=True):
    """The fields that decide what is computed.

    Attributes:
        qkv_bias: The products of q, k and v have biases.
        out_bias: The product after attention has one.
        mlp_bias: The three products of the MLP have biases.
        qk_norm: Queries and keys are normalised head by head, before they are rotated.
        windows: A layer each: how many positions a token sees, its own included; None is all up to its own.
    """

    architecture: str
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    dtype: str
    qkv_bias: bool
    out_bias: bool
    qk_norm: bool
    windows: tuple[int | None, ...]

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing beyond the common block with biases of q, k and v.

        A step with kernels of its own that knows only these must not be given anything else.
        """
        return not (self.out_bias or self.mlp_bias or self.qk_norm or any(self.windows))


class _Ends(Struct, frozen=True):
    """generation_config.json."""

    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None


class _Said(_Sizes, frozen=True, kw_only=True):
    """config.json, with the family's defaults."""

    model_type: str
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    original_max_position_embeddings: Count | None = None
    rope_theta: Positive = 10_000.0
    rope_scaling: Rope | RopeScaling | None = None
    rope_parameters: Rope | RopeScaling | None = None
    partial_rotary_factor: float = 1.0
    dtype: Dtype | None = None
    torch_dtype: Dtype | None = None
    hidden_act: Literal["silu"] = "silu"
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: Count | None = None
    max_window_layers: Annotated[int, Meta(ge=0)] = 0
    layer_types: list[Literal["full_attention", "sliding_attention"]] | None = None
    quantization_config: dict[str, Any] | None = None


class _Named(Struct):
    architectures: Annotated[list[str], Meta(min_length=1)]


def read_config(files: SideFiles) -> ModelConfig:
    """Read config.json and, where present, generation_config.json of a checkpoint.

    Raises:
        FileNotFound: There is no config.json.
        InvalidModel: A field is malformed, or asks for something this engine does not compute.
    """
    path, raw = files.where(CONFIG), files.read_json(CONFIG)
    architecture = typed(path, raw, _Named).architectures[0]
    if architecture not in FAMILIES:
        _fail(path, "architectures", f"{quote(architecture)} is not supported; this engine runs {', '.join(FAMILIES)}")
    family = FAMILIES[architecture]
    more = _without_nulls(files.read_json(GENERATION) if GENERATION in files else {})
    generation = typed(files.where(GENERATION), more, _Ends)
    ends = {name: more[name] for name in _Ends.__struct_fields__ if name in more}
    told = {"model_type": family.model_type, **family.defaults, **ends, **_in_one_spelling(raw)}
    for what, names in REFUSED.items():
        for name in told.keys() & names:
            _fail(path, name, f"it speaks of {what}, which this engine does not run")
    said = typed(path, told, _Said)
    _refuse_unsupported(path, said, family)
    theta, scaling = _rope(path, said)
    return ModelConfig(
        **{name: getattr(said, name) for name in _Sizes.__struct_fields__},
        architecture=architecture,
        num_kv_heads=said.num_key_value_heads or said.num_heads,
        head_dim=said.head_dim or max(1, said.hidden_size // said.num_heads),
        rope_theta=theta,
        rope_scaling=scaling,
        eos_token_ids=_union(said.eos_token_id, generation.eos_token_id),
        bos_token_id=next(iter(_union(said.bos_token_id, generation.bos_token_id)), None),
        dtype=DTYPES.get(said.dtype or said.torch_dtype or "", ""),
        qkv_bias=family.qkv_bias or said.attention_bias,
        out_bias=said.attention_bias,
        qk_norm=family.qk_norm,
        windows=_windows(path, said),
    )


def _without_nulls(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if value is not None}


def _in_one_spelling(raw: dict[str, Any]) -> dict[str, Any]:
    """What is said, without nulls that say nothing; rotary embedding names its kind as `rope_type`."""
    told = {name: value for name, value in raw.items() if value is not None or name in NULLABLE}
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(rope := told.get(name), dict):
            rope = _without_nulls(rope)
            told[name] = {"rope_type": rope.get("type", "default"), **rope} if rope else None
    return told


def _refuse_unsupported(path: str, said: _Said, family: Family) -> None:
    """Settings that would change the result, were they ignored; sizes that do not go together."""
    if said.model_type != family.model_type:
        _fail(path, "model_type", f"{quote(said.model_type)} is not {family.model_type}, as the architecture is")
    for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if getattr(said, name) and name not in family.flags:
            _fail(path, name, f"true is not supported for {family.model_type}")
    if said.quantization_config is not None:
        method = said.quantization_config.get("quant_method", "unnamed")
        _fail(path, "quantization_config", f"quantized weights ({quote(str(method))}) are not supported")
    heads, kv_heads = said.num_heads, said.num_key_value_heads or said.num_heads
    if heads % kv_heads:
        _fail(path, "num_key_value_heads", f"{kv_heads} does not divide num_attention_heads {heads}")
    if said.head_dim is None and said.hidden_size % heads:
        _fail(path, "hidden_size", f"{said.hidden_size} is not a multiple of num_attention_heads {heads}")
    if (said.head_dim or said.hidden_size // heads) % 2:
        _fail(path, "head_dim", "it is odd, rotary embedding needs pairs")


def _windows(path: str, said: _Said) -> tuple[int | None, ...]:
    """The sliding window of each layer: Mistral has it in all, Qwen in the late ones, if switched on."""
    layers, everywhere = said.num_layers, said.model_type == FAMILIES[MISTRAL].model_type
    window = said.sliding_window if everywhere or said.use_sliding_window else None
    first = said.max_window_layers if window else layers
    by_place = [FULL if layer < first else SLIDING for layer in range(layers)]
    kinds: Sequence[str] = by_place if said.layer_types is None else said.layer_types
    if len(kinds) != layers or (SLIDING in kinds and window is None):
        _fail(path, "layer_types", f"it must name {FULL}, or {SLIDING} and a window, for each of {layers} layers")
    if everywhere and window is not None and FULL in kinds:
        _fail(path, "layer_types", f"{FULL} in some layers is not supported for {said.model_type}")
    return tuple(window if kind == SLIDING else None for kind in kinds)


def _union(*said: int | list[int] | None) -> tuple[int, ...]:
    """The ids that any of them names."""
    lists = [[ids] if isinstance(ids, int) else ids or [] for ids in said]
    return tuple(dict.fromkeys(token for ids in lists for token in ids))


def _rope(path: str, said: _Said) -> tuple[float, RopeScaling | None]:
    """Theta and scaling: from `rope_scaling` (old), which wins, or `rope_parameters` (new), and `rope_theta`."""
    rope = said.rope_scaling or said.rope_parameters or Rope()
    if {said.partial_rotary_factor, rope.partial_rotary_factor} != {1.0}:
        _fail(path, "partial_rotary_factor", "only 1.0 is supported, beside rope_parameters or in them")
    theta = rope.rope_theta or said.rope_theta
    if not isinstance(rope, RopeScaling):
        return theta, None
    # Where both places name it, transformers takes the one beside `rope_scaling`, not the one in it.
    positions = said.original_max_position_embeddings or rope.original_positions or said.max_positions
    return theta, structs.replace(rope, original_positions=positions)


def _fail(path: str, name: str, cause: str) -> NoReturn:
    raise InvalidModel(path, f"{name}: {cause}")
