"""VI. Model Loading: everything that the checkpoint holds is loaded, and everything that is loaded is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from checks.support.arrangements import observe_arrangements, observe_widened
from checks.support.checkpoints import copy_of, tensors_of
from checks.support.devices import bare_process_memory, witness_memory
from checks.support.errors import observe_refused_load
from checks.support.quality import first_golden, loaded_from, loaded_model
from checks.support.settings import observe_heads, observe_settings
from checks.support.tensors import write_safetensors
from checks.support.weights import WEIGHTS, Perturbable, changed_config, negated, without, zeroed
from conformance.corpus.geometry import GOLDENS as GEOMETRY_GOLDENS
from conformance.corpus.geometry import geometry_checkpoint
from conformance.corpus.goldens import load_goldens
from conformance.corpus.variants import derive
from conformance.observations import Tokens
from conformance.protocol.messages import ErrorKind, Generate, Handle, Logits
from conformance.trial.stand import AnswerFellShort, Stand, part_of

_SMALL_BYTES, _LAYERS_OF_LARGE = 100 * 1024 * 1024, 6
_REFUSED = (ErrorKind.INVALID_MODEL, ErrorKind.INVALID_FILE)


def test_f_load_056(stand: Stand) -> None:
    golden = first_golden(stand)
    for variant in ("f32", "bf16", "sharded"):
        directory = derive(stand.model_directory, variant)
        with loaded_from(stand, directory, dtype=None) as model:
            weights = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
            plausible = 0.98 * weights <= model.weight_bytes <= 2 * weights
            stand.equal(f"weight_bytes/{variant}", expected=True, observed=plausible)
            if variant != "bf16":
                request = Generate(model.handle, golden.max_tokens, prompt_ids=list(golden.prompt_ids))
                answer = stand.engine.call("generate", request)
                stand.equal(f"answers/{variant}", expected=list(golden.ids), observed=list(answer.ids))
    observe_arrangements(stand)
    observe_widened(stand)
    if stand.needs_gpu("in_vram", "geometry_answers"):
        _observe_geometry(stand)


def _observe_geometry(stand: Stand) -> None:
    """Qwen2.5-1.5B's own shapes, large enough for NVML's pages: F32 and BF16, one file and shards."""
    stand.weights = f"{stand.plan.model.name}, geometry"
    before = bare_process_memory(stand)
    bf16 = geometry_checkpoint("BF16")
    for name, directory in (("F32", geometry_checkpoint("F32")), ("BF16", bf16), ("shards", derive(bf16, "sharded"))):
        with loaded_from(stand, directory, dtype=None) as model:
            held = witness_memory(stand) - before
            stand.measured(f"in_vram/{name}", held / model.weight_bytes, "share of the weights' bytes")
            if name == "F32":
                case = load_goldens(GEOMETRY_GOLDENS).run.cases[0]
                request = Generate(model.handle, case.max_tokens, prompt_ids=list(case.prompt_ids), ignore_eos=True)
                answer = stand.engine.call("generate", request)
                stand.observe(
                    Tokens(
                        name="geometry_answers",
                        expected=list(case.ids),
                        observed=list(answer.ids)[: len(case.ids)],
                        margins=list(case.margins)[: len(case.ids)],
                    )
                )


def test_f_load_057(stand: Stand) -> None:
    told = _config_of(stand)["num_hidden_layers"]
    with loaded_model(stand) as model:
        stand.equal("count", expected=told, observed=model.config.num_layers)
    copy = Perturbable(stand)
    changes = {str(layer): copy.change_of(_of_layer(copy, layer), zeroed) for layer in _layers_tried(stand, told)}
    stand.measured("smallest_change", min(changes.values()), "logits", note=json.dumps(changes))


def test_f_load_058(stand: Stand) -> None:
    _observe_used(stand, ["model.embed_tokens.weight"])


def test_f_load_059(stand: Stand) -> None:
    tied = bool(_config_of(stand).get("tie_word_embeddings"))
    golden = first_golden(stand)
    answers: dict[str, list[int]] = {}
    for name, directory in (
        ("tied", stand.model_directory),
        ("untied", derive(stand.model_directory, "untied")),
    ):
        with loaded_from(stand, directory) as model:
            request = Generate(model.handle, golden.max_tokens, prompt_ids=list(golden.prompt_ids))
            answers[name] = list(stand.engine.call("generate", request).ids)
    stand.equal("answers", expected={name: list(golden.ids) for name in answers}, observed=answers)
    untied = copy_of(stand, "untied", derive(stand.model_directory, "untied"))
    tensors = tensors_of(untied / WEIGHTS)
    dtype, shape, payload = tensors["lm_head.weight"]
    tensors["lm_head.weight"] = (dtype, shape, negated(dtype, payload))
    write_safetensors(untied / WEIGHTS, tensors)
    with loaded_from(stand, untied) as model:
        request = Generate(model.handle, golden.max_tokens, prompt_ids=list(golden.prompt_ids))
        stand.equal(
            "head_is_used", expected=True, observed=list(stand.engine.call("generate", request).ids) != list(golden.ids)
        )
    del tensors["lm_head.weight"]
    write_safetensors(untied / WEIGHTS, tensors)
    observe_refused_load(stand, "untied-without-head", untied, _REFUSED, ["lm_head.weight"])
    stand.equal("is_tied", expected=tied, observed=_config_of(stand).get("tie_word_embeddings", False))


def test_f_load_060(stand: Stand) -> None:
    _observe_used(stand, ["model.norm.weight"])


def test_f_load_061(stand: Stand) -> None:
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    _observe_used(stand, [f"self_attn.{part}." for part in parts], per_layer=True)


def test_f_load_062(stand: Stand) -> None:
    _observe_used(stand, ["mlp.gate_proj.", "mlp.up_proj.", "mlp.down_proj."], per_layer=True)


def test_f_load_063(stand: Stand) -> None:
    config = _config_of(stand)
    with loaded_model(stand) as model:
        seen = model.config
        observed = {name: getattr(seen, name) for name in _expected_config(stand, config)}
        observed["eos_token_ids"] = sorted(observed["eos_token_ids"])
        stand.equal("fields", expected=_expected_config(stand, config), observed=observed)
        plain = _logits(stand, model.handle)
    for name, spelled in _other_spellings(config).items():
        directory = copy_of(stand, f"spelling-{name}")
        (directory / "config.json").write_text(json.dumps(spelled))
        with loaded_from(stand, directory) as model:
            same = {field: getattr(model.config, field) for field in observed}
            same["eos_token_ids"] = sorted(same["eos_token_ids"])
            stand.equal(f"spelling/{name}", expected=observed, observed=same)
            stand.equal(
                f"same_logits/{name}", expected=True, observed=bool(np.array_equal(plain, _logits(stand, model.handle)))
            )
    changed = changed_config(stand, "theta", lambda c: _set_theta(c, 10000.0))
    with loaded_from(stand, changed) as model:
        stand.equal("theta_is_used", expected=False, observed=bool(np.array_equal(plain, _logits(stand, model.handle))))
    observe_settings(stand, plain)
    observe_heads(stand)
    malformed: dict[str, Any] = {
        "hidden_size": "64",
        "num_hidden_layers": -1,
        "vocab_size": None,
        "rms_norm_eps": "small",
    }
    for field, value in malformed.items():
        directory = changed_config(stand, f"malformed-{field}", partial(_put, field, value))
        observe_refused_load(stand, f"malformed-{field}", directory, _REFUSED, [field])


def test_f_load_064(stand: Stand) -> None:
    config = _config_of(stand)
    tokenizer = json.loads((stand.model_directory / "tokenizer.json").read_text())
    known = {*tokenizer["model"]["vocab"].values(), *(added["id"] for added in tokenizer.get("added_tokens", []))}
    with loaded_model(stand) as model:
        held = stand.engine.call("model.tensors", Handle(model.handle)).tensors
        rows = part_of([t for t in held if "embed_tokens" in t.name], 0, "the embedding")
        stand.equal("rows", expected=config["vocab_size"], observed=rows.shape[0])
        stand.equal("covers_tokenizer", expected=True, observed=max(known) < model.config.vocab_size)
    padded = sorted(set(range(config["vocab_size"])) - known)
    # Most real vocabularies are padded; one that is not is extended, so that there is something to produce.
    source = stand.model_directory if padded else derive(stand.model_directory, "extended")
    place = max(padded, default=config["vocab_size"])
    for direction in (1, -1):
        produced = _with_loud_padding(stand, source, place, direction)
        stand.equal(f"never_produced/{direction}", expected=[], observed=[i for i in produced if i not in known])


def test_f_load_065(stand: Stand) -> None:
    with loaded_model(stand) as model:
        stand.equal("hidden_size", expected=_config_of(stand)["hidden_size"], observed=model.config.hidden_size)
        tensors = {t.name: t.shape for t in stand.engine.call("model.tensors", Handle(model.handle)).tensors}
    stored = {name: shape for name, (_, shape, _) in tensors_of(stand.model_directory / WEIGHTS).items()}
    differ = {name: [shape, tensors.get(name)] for name, shape in stored.items() if tensors.get(name) != shape}
    stand.equal("shapes", expected={}, observed=differ)
    for kind in ("input_layernorm.weight", "self_attn.k_proj.weight", "mlp.down_proj.weight", "embed_tokens.weight"):
        name = next(n for n in sorted(stored) if n.endswith(kind))
        directory = copy_of(stand, f"cut-{kind}")
        cut = tensors_of(directory / WEIGHTS)
        dtype, shape, payload = cut[name]
        cut[name] = (dtype, [shape[0] - 1, *shape[1:]], payload[: len(payload) - len(payload) // shape[0]])
        write_safetensors(directory / WEIGHTS, cut)
        observe_refused_load(stand, kind, directory, _REFUSED, [name])


def _put(field: str, value: object, config: dict[str, Any]) -> None:
    config[field] = value


def _observe_used(stand: Stand, patterns: Sequence[str], *, per_layer: bool = False) -> None:
    """Observe that every tensor whose name holds a pattern is there, changes the logits, and is missed by name."""
    copy = Perturbable(stand)
    layers: list[int | None] = [None]
    if per_layer:
        layers = [*_layers_tried(stand, _config_of(stand)["num_hidden_layers"])]
    with loaded_model(stand) as model:
        held = {tensor.name for tensor in stand.engine.call("model.tensors", Handle(model.handle)).tensors}
    changes: dict[str, float] = {}
    for layer in layers:
        prefix = "" if layer is None else f"model.layers.{layer}."
        for pattern in patterns:
            names = [name for name in copy.spans if name.startswith(prefix) and pattern in name]
            changes |= {name: copy.change_of([name], negated) for name in names}
            if not names:
                stand.failed("present", "absent", f"no tensor {prefix}{pattern} in the checkpoint")
    stand.equal("present", expected=sorted(changes), observed=sorted(held & set(changes)))
    stand.measured("smallest_change", min(changes.values()), "logits", note=json.dumps(changes))
    for name in {min(changes), max(changes)}:
        observe_refused_load(stand, name, without(stand, name), _REFUSED, [name])


def _layers_tried(stand: Stand, count: int) -> list[int]:
    """Every layer; of a checkpoint over 100 MB the first, the last and four seeded ones between, told in the note."""
    if stand.plan.model.nbytes <= _SMALL_BYTES or count <= _LAYERS_OF_LARGE:
        return list(range(count))
    return sorted({0, count - 1, *stand.random.sample(range(1, count - 1), _LAYERS_OF_LARGE - 2)})


def _of_layer(copy: Perturbable, layer: int) -> list[str]:
    """The two projections through which a layer writes into the residual stream; zeroed, it is skipped."""
    ends = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
    return [name for name in copy.spans if name.startswith(f"model.layers.{layer}.") and name.endswith(ends)]


def _config_of(stand: Stand) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((stand.model_directory / "config.json").read_text())
    return config


def _theta(config: dict[str, Any]) -> float:
    return float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])


def _set_theta(config: dict[str, Any], theta: float) -> None:
    config.pop("rope_parameters", None)
    config["rope_theta"] = theta


def _expected_config(stand: Stand, config: dict[str, Any]) -> dict[str, Any]:
    """Our own reading of the fields that decide what is computed."""
    generation = stand.model_directory / "generation_config.json"
    listed = json.loads(generation.read_text()).get("eos_token_id") if generation.exists() else None
    eos = [one for source in (config.get("eos_token_id"), listed) for one in _as_list(source)]
    heads = config["num_attention_heads"]
    return {
        "architecture": config["architectures"][0],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "vocab_size": config["vocab_size"],
        "rope_theta": _theta(config),
        "rms_norm_eps": config["rms_norm_eps"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "eos_token_ids": sorted(set(eos)),
    }


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _other_spellings(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same configuration in the old and the new spelling, and with head_dim null."""
    bare = {
        k: v
        for k, v in config.items()
        if k not in {"rope_theta", "rope_parameters", "torch_dtype", "dtype", "head_dim"}
    }
    dtype = config.get("torch_dtype") or config.get("dtype") or "float32"
    old = bare | {"rope_theta": _theta(config), "torch_dtype": dtype}
    new = bare | {"rope_parameters": {"rope_type": "default", "rope_theta": _theta(config)}, "dtype": dtype}
    return {"old": old, "new": new, "null-head-dim": old | {"head_dim": None}}


def _logits(stand: Stand, model: int) -> np.ndarray:
    probe = list(first_golden(stand).prompt_ids)
    return stand.read_tensor(stand.engine.call("model.logits", Logits(model, probe)))


def _with_loud_padding(stand: Stand, source: Path, padded: int, sign: int) -> list[int]:
    """Ids produced when a padded row of the head points along the chosen one's, a hundred times as long."""
    directory = copy_of(stand, f"loud-{sign}", source)
    tensors = tensors_of(directory / WEIGHTS)
    name = "lm_head.weight" if "lm_head.weight" in tensors else "model.embed_tokens.weight"
    dtype, shape, payload = tensors[name]
    width = len(payload) // shape[0]
    golden = first_golden(stand)
    chosen = golden.ids[0]
    row = np.frombuffer(payload[chosen * width : (chosen + 1) * width], dtype="<f4" if dtype == "F32" else "<u2")
    loud = (row * np.float32(100 * sign)).astype("<f4") if dtype == "F32" else _scaled(row, dtype, sign)
    tensors[name] = (dtype, shape, payload[: padded * width] + loud.tobytes() + payload[(padded + 1) * width :])
    write_safetensors(directory / WEIGHTS, tensors)
    with loaded_from(stand, directory) as model:
        request = Generate(model.handle, 8, prompt_ids=list(golden.prompt_ids))
        produced = list(stand.engine.call("generate", request).ids)
    if not produced:
        raise AnswerFellShort("a single id, so that none could be a padded one")
    return produced


def _scaled(bits: np.ndarray, dtype: str, sign: int) -> np.ndarray:
    """A 16-bit row times ± 128, exactly, by its exponent; zeros stay zeros."""
    mantissa = 7 if dtype == "BF16" else 10
    top = np.uint16(0x8000)
    scaled = np.where(bits & ~top, bits + np.uint16(7 << mantissa), bits).astype("<u2")
    return scaled ^ (top if sign < 0 else np.uint16(0))
