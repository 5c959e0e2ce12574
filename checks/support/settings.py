"""Settings that change what is computed: heard or refused, never let be; and heads in other numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from checks.support.checkpoints import Tensors, copy_of, tensors_of
from checks.support.quality import first_golden, loaded_from
from checks.support.tensors import write_safetensors
from checks.support.weights import WEIGHTS, changed_config
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import Generate, Logits
from conformance.trial.stand import NotTried, Stand

_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 32}  # fmt: skip
_CHANGES: dict[str, dict[str, Any]] = {
    "llama3 scaling": {"rope_scaling": _LLAMA3, "rope_parameters": None},
    "linear scaling": {"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4.0}},
    "gelu": {"hidden_act": "gelu"},
    "window": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    "quantization": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
}


def observe_settings(stand: Stand, plain: np.ndarray) -> None:
    """Observe `settings/<name>`: a copy with this setting is refused, or gives other logits; hardening.

    The model that the specification names has none of these; an engine that lets them be answers in a fluent voice that
    is another model's.
    """
    for name, fields in _CHANGES.items():
        directory = changed_config(stand, f"setting-{name.replace(' ', '-')}", partial(_update, fields))
        probe = list(first_golden(stand).prompt_ids)
        try:
            with loaded_from(stand, directory) as model:
                logits = stand.read_tensor(stand.engine.call("model.logits", Logits(model.handle, probe)))
            observed = "let be" if np.array_equal(plain, logits) else "heard"
        except EngineRefused:
            observed = "refused"
        stand.equal(f"settings/{name}", expected=True, observed=observed != "let be", hardening=True, note=observed)


def observe_heads(stand: Stand) -> None:
    """Observe `heads/<how>`: the same function with other numbers of heads: golden ids, or a refusal; hardening.

    Keys and values of a group may be repeated for each of its queries; and a query may be asked twice, if each answer
    counts half.
    """
    golden = first_golden(stand)
    for name, deal in (("a group each", _repeat_keys), ("larger groups", _repeat_queries)):
        directory = _dealt(stand, name, deal)
        try:
            with loaded_from(stand, directory) as model:
                request = Generate(model.handle, golden.max_tokens, prompt_ids=list(golden.prompt_ids))
                observed: object = list(stand.engine.call("generate", request).ids)
        except EngineRefused as refusal:
            stand.equal(f"heads/{name}", expected=True, observed=True, hardening=True, note=f"refused: {refusal}")
            continue
        stand.equal(f"heads/{name}", expected=list(golden.ids), observed=observed, hardening=True)


def _update(fields: dict[str, Any], config: dict[str, Any]) -> None:
    config.update(fields)


def _dealt(stand: Stand, name: str, deal: Callable[[dict[str, Any], Tensors], None]) -> Path:
    target = copy_of(stand, f"heads-{name.replace(' ', '-')}")
    if not (target / WEIGHTS).is_file():
        raise NotTried("the checkpoint is sharded; changed copies are made of single files")
    config = json.loads((target / "config.json").read_text())
    heads = config["num_attention_heads"]
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // heads
    config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    tensors = tensors_of(target / WEIGHTS)
    deal(config, tensors)
    write_safetensors(target / WEIGHTS, tensors)
    (target / "config.json").write_text(json.dumps(config))
    return target


def _repeat_keys(config: dict[str, Any], tensors: Tensors) -> None:
    """One group for each query head."""
    times = config["num_attention_heads"] // config["num_key_value_heads"]
    for name in tensors:
        if ".k_proj." in name or ".v_proj." in name:
            _change(tensors, name, lambda values: _rows_repeated(values, config["head_dim"], times))
    config["num_key_value_heads"] = config["num_attention_heads"]


def _repeat_queries(config: dict[str, Any], tensors: Tensors) -> None:
    """Twice as many query heads in each group, each with half the weight; a half is exact in every dtype."""
    for name in tensors:
        if ".q_proj." in name:
            _change(tensors, name, lambda values: _rows_repeated(values, config["head_dim"], 2))
        elif ".o_proj.weight" in name:
            _change(tensors, name, lambda values: _rows_repeated(values.T, config["head_dim"], 2).T)
            tensors[name] = _halved(*tensors[name])
    config["num_attention_heads"] *= 2


def _rows_repeated(values: np.ndarray, size: int, times: int) -> np.ndarray:
    """Each block of `size` rows so many times in a row."""
    blocks = values.reshape(-1, size, *values.shape[1:])
    return blocks.repeat(times, axis=0).reshape(-1, *values.shape[1:])


def _change(tensors: Tensors, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    dtype, shape, payload = tensors[name]
    changed = change(np.frombuffer(payload, dtype="<u4" if dtype == "F32" else "<u2").reshape(shape))
    tensors[name] = (dtype, list(changed.shape), changed.tobytes())


def _halved(dtype: str, shape: list[int], payload: bytes) -> tuple[str, list[int], bytes]:
    if dtype == "F32":
        return dtype, shape, (np.frombuffer(payload, "<f4") / 2).astype("<f4").tobytes()
    if dtype == "F16":
        return dtype, shape, (np.frombuffer(payload, "<f2") / 2).astype("<f2").tobytes()
    wide = (np.frombuffer(payload, "<u2").astype("<u4") << 16).view("<f4") / 2
    return dtype, shape, (wide.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
