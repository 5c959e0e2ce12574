"""Checkpoints derived from the one on trial: each broken in one way that a loader must name."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from checks.support.tensors import write_safetensors
from conformance.corpus.variants import derive
from conformance.trial.stand import Stand

_WEIGHTS = "model.safetensors"
_SIZES = {"F64": 8, "I64": 8, "I32": 4, "F32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}
Tensors = dict[str, tuple[str, list[int], bytes]]


def copy_of(stand: Stand, name: str, source: Path | None = None) -> Path:
    """A writable copy of the checkpoint on trial (or another one) in the row's directory, without its goldens."""
    target = stand.directory / name
    shutil.copytree(source or stand.model_directory, target, ignore=shutil.ignore_patterns("goldens.*", "*.py"))
    return target


def tensors_of(path: Path) -> Tensors:
    """Every tensor of a file as (dtype, shape, bytes), read with the official library."""
    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        described = {name: (str(part.get_dtype()), list(part.get_shape())) for name, part in slices.items()}
    header_size, header = _header(path)
    raw = path.read_bytes()[8 + header_size :]
    return {name: (*described[name], raw[slice(*header[name]["data_offsets"])]) for name in names}


def _header(path: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return size, json.loads(file.read(size))


def broken_checkpoints(stand: Stand) -> dict[str, tuple[Path, list[str]]]:
    """Broken checkpoints by case: where each lies, and what the error must name."""
    return {case: (path, names) for case, (path, names) in ((c, make(stand, c)) for c, make in _BROKEN.items())}


def checkpoint_with_dtype(stand: Stand, dtype: str) -> tuple[Path, str]:
    """The checkpoint with one weight stored in another dtype of the right size; the path and the tensor's name."""
    target = copy_of(stand, f"dtype-{dtype}-{stand.random.randrange(1 << 30)}")
    tensors = tensors_of(target / _WEIGHTS)
    name = next(n for n in sorted(tensors) if n.endswith("norm.weight"))
    _, shape, payload = tensors[name]
    count = len(payload) // _SIZES[tensors[name][0]]
    if dtype != tensors[name][0]:
        tensors[name] = (dtype, shape, b"\0" * (count * _SIZES[dtype]))
    write_safetensors(target / _WEIGHTS, tensors)
    return target, name


def with_eos(stand: Stand, ids: list[int], source: Path | None = None) -> Path:
    """The checkpoint (or another one) with other stop ids, in config.json and generation_config.json alike."""
    target = copy_of(stand, "eos-" + "-".join(map(str, ids)) + f"-{stand.random.randrange(1 << 30)}", source)
    for name in ("config.json", "generation_config.json"):
        file = target / name
        if file.exists():
            config = json.loads(file.read_text())
            file.write_text(json.dumps(config | {"eos_token_id": ids}))
    return target


def _truncated(stand: Stand, case: str) -> tuple[Path, list[str]]:
    target = copy_of(stand, case)
    file = target / _WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    return target, [_WEIGHTS]


def _foreign(stand: Stand, case: str) -> tuple[Path, list[str]]:
    target = copy_of(stand, case)
    (target / _WEIGHTS).write_bytes(b"\x80\x04\x95" + stand.random.randbytes(4096))
    return target, [_WEIGHTS]


def _without(file: str) -> Callable[[Stand, str], tuple[Path, list[str]]]:
    def make(stand: Stand, case: str) -> tuple[Path, list[str]]:
        target = copy_of(stand, case)
        (target / file).unlink()
        return target, [file]

    return make


def _config(change: Callable[[dict[str, object]], None], *names: str) -> Callable[[Stand, str], tuple[Path, list[str]]]:
    def make(stand: Stand, case: str) -> tuple[Path, list[str]]:
        target = copy_of(stand, case)
        config = json.loads((target / "config.json").read_text())
        change(config)
        (target / "config.json").write_text(json.dumps(config))
        return target, list(names)

    return make


def _config_not_json(stand: Stand, case: str) -> tuple[Path, list[str]]:
    target = copy_of(stand, case)
    (target / "config.json").write_text('{"architectures": [')
    return target, ["config.json"]


def _missing_tensor(stand: Stand, case: str) -> tuple[Path, list[str]]:
    target = copy_of(stand, case)
    tensors = tensors_of(target / _WEIGHTS)
    name = next(n for n in sorted(tensors) if n.endswith("mlp.up_proj.weight"))
    del tensors[name]
    write_safetensors(target / _WEIGHTS, tensors)
    return target, [name]


def _wrong_shape(stand: Stand, case: str) -> tuple[Path, list[str]]:
    target = copy_of(stand, case)
    tensors = tensors_of(target / _WEIGHTS)
    name = next(n for n in sorted(tensors) if n.endswith("self_attn.o_proj.weight"))
    dtype, shape, payload = tensors[name]
    row = len(payload) // shape[0]
    tensors[name] = (dtype, [shape[0] - 1, *shape[1:]], payload[:-row])
    write_safetensors(target / _WEIGHTS, tensors)
    return target, [name]


def _uneven_heads(config: dict[str, object]) -> None:
    """As many KV heads as cannot divide the query heads."""
    heads = config["num_attention_heads"]
    assert isinstance(heads, int)
    config["num_key_value_heads"] = heads - 1 if heads > 2 else heads + 1


def _missing_shard(stand: Stand, case: str) -> tuple[Path, list[str]]:
    target = copy_of(stand, case, derive(stand.model_directory, "sharded"))
    shard = max(target.glob("*.safetensors"))
    shard.unlink()
    return target, [shard.name]


def _hostile_name(stand: Stand, case: str) -> tuple[Path, list[str]]:
    """A name with a line end and a terminal's escape sequence, in the part of the header that must be complained of."""
    target = copy_of(stand, case)
    entry = {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"evil\nerror: all is well\x1b[31m": entry}).encode()
    (target / _WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return target, [_WEIGHTS]


def _empty_directory(stand: Stand, case: str) -> tuple[Path, list[str]]:
    target = stand.directory / case
    target.mkdir()
    return target, [case]


_BROKEN: dict[str, Callable[[Stand, str], tuple[Path, list[str]]]] = {
    "truncated": _truncated,
    "foreign": _foreign,
    "no-config": _without("config.json"),
    "no-weights": _without(_WEIGHTS),
    "config-not-json": _config_not_json,
    "config-hidden-size-float": _config(lambda c: c.update(hidden_size=64.5), "hidden_size"),
    "config-heads-zero": _config(lambda c: c.update(num_attention_heads=0), "num_attention_heads"),
    "config-kv-heads-uneven": _config(_uneven_heads, "num_key_value_heads"),
    "config-other-family": _config(lambda c: c.update(architectures=["MambaForCausalLM"], model_type="mamba"), "amba"),
    "config-layers-beyond": _config(lambda c: c.update(num_hidden_layers=99), "model.layers."),
    "missing-tensor": _missing_tensor,
    "wrong-shape": _wrong_shape,
    "shard-missing": _missing_shard,
    "hostile-name": _hostile_name,
    "directory-empty": _empty_directory,
}
