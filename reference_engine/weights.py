"""Which tensors a model needs, of which shape, and how they lie in device memory.

Tensors that one product uses (q, k, v; gate, up) lie next to each other, so that the fused weight of that
product is a view of them: no copy, no transpose, the checkpoint's own [out, in].
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from reference_engine.checkpoint import Checkpoint, Located
from reference_engine.config import ModelConfig
from reference_engine.device import Device
from reference_engine.errors import MissingTensor, ShapeMismatch
from reference_engine.loader import require_weight_dtype, transfer
from reference_engine.storage import TORCH_DTYPES, CudaStorage

ALIGNMENT = 256
CONVERSION_BYTES = 256 << 20
EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"


class Group(NamedTuple):
    """Tensors that lie adjacently: names and shapes that differ only in the first dimension."""

    members: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all members stacked along the first dimension."""
        first = self.members[0][1]
        return (sum(shape[0] for _, shape in self.members), *first[1:])

    def split(self, whole: torch.Tensor) -> dict[str, torch.Tensor]:
        """The members in their stack, by name."""
        names, shapes = zip(*self.members, strict=True)
        return dict(zip(names, whole.split([shape[0] for shape in shapes]), strict=True))


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """Weights of one block; products are [out, in], `qk_norm` is [2, D], None is what the family does not have."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None = None
    qk_norm: torch.Tensor | None = None
    attention_out: torch.Tensor
    attention_out_bias: torch.Tensor | None = None
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None = None
    down: torch.Tensor
    down_bias: torch.Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """All weights of a model: by the checkpoint's names, and as the forward pass uses them."""

    storages: dict[str, CudaStorage]
    embedding: torch.Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: torch.Tensor
    lm_head: torch.Tensor
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all weights on the device."""
        return sum(storage.nbytes for storage in self.storages.values())


def load_weights(
    checkpoint: Checkpoint,
    config: ModelConfig,
    device: Device,
    dtype: str | None,
    meanwhile: Callable[[Weights], AbstractContextManager[None]],
) -> Weights:
    """Check every tensor against the configuration, then load what the model needs; other tensors are let be.

    Args:
        checkpoint: Open files.
        config: Its configuration.
        device: Where to.
        dtype: F32, F16 or BF16 to compute in; None keeps the file's, or takes F32 if it mixes dtypes.
        meanwhile: Entered with the weights before their bytes arrive, left when they are there.

    Raises:
        MissingTensor, ShapeMismatch, UnsupportedDtype: Before anything is allocated.
        OutOfDeviceMemory: The device has too little free.
    """
    tied = config.tie_word_embeddings and LM_HEAD not in checkpoint.tensors
    layers = [_layer_groups(f"model.layers.{layer}", config) for layer in range(config.num_layers)]
    groups = [group for parts in layers for group in parts.values()] + _outer_groups(config, tied=tied)
    shapes = dict(member for group in groups for member in group.members)
    for name, shape in shapes.items():
        _check(checkpoint, name, shape)
    found = {checkpoint.tensors[name].entry.dtype for name in shapes}
    target = TORCH_DTYPES[dtype or (found.pop() if len(found) == 1 else "F32")]
    stacked = dict(zip(groups, _lay_out(groups, target, device), strict=True))
    tensors = {name: part for group, whole in stacked.items() for name, part in group.split(whole).items()}
    weights = Weights(
        storages={name: CudaStorage(device, tensor) for name, tensor in tensors.items()},
        embedding=tensors[EMBEDDING],
        layers=tuple(_layer(parts, stacked) for parts in layers),
        final_norm=tensors[FINAL_NORM],
        lm_head=tensors[EMBEDDING if tied else LM_HEAD],
        dtype=target,
    )
    with meanwhile(weights):
        _fill([(checkpoint.tensors[name], tensor) for name, tensor in tensors.items()], device)
    return weights


def _layer_groups(prefix: str, config: ModelConfig) -> dict[str, Group]:
    """What a layer needs, by the fields of `LayerWeights`, in memory order."""
    hidden, wide, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_heads * size, config.num_kv_heads * size
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
    qkv = ((f"{attention}.q_proj", queries), (f"{attention}.k_proj", keys), (f"{attention}.v_proj", keys))
    gate_up = ((f"{mlp}.gate_proj", wide), (f"{mlp}.up_proj", wide))
    wanted = {"attention_norm": _group(((f"{prefix}.input_layernorm", hidden),))}
    if config.qk_norm:
        wanted["qk_norm"] = _group(((f"{attention}.q_norm", size), (f"{attention}.k_norm", size)))
    wanted["mlp_norm"] = _group(((f"{prefix}.post_attention_layernorm", hidden),))
    for field, modules, columns, biased in (
        ("qkv", qkv, hidden, config.qkv_bias),
        ("attention_out", ((f"{attention}.o_proj", hidden),), queries, config.out_bias),
        ("gate_up", gate_up, hidden, config.mlp_bias),
        ("down", ((f"{mlp}.down_proj", hidden),), wide, config.mlp_bias),
    ):
        wanted[field] = _group(modules, columns)
        if biased:
            wanted[f"{field}_bias"] = _group(modules, kind="bias")
    return wanted


def _outer_groups(config: ModelConfig, *, tied: bool) -> list[Group]:
    """What lies outside the layers, in memory order: norm, embedding and head."""
    table = (config.vocab_size, config.hidden_size)
    names = (EMBEDDING,) if tied else (EMBEDDING, LM_HEAD)
    return [Group(((FINAL_NORM, (config.hidden_size,)),)), *(Group(((name, table),)) for name in names)]


def _group(modules: Sequence[tuple[str, int]], *columns: int, kind: str = "weight") -> Group:
    """The weights or biases of modules with so many rows each."""
    return Group(tuple((f"{module}.{kind}", (rows, *columns)) for module, rows in modules))


def _check(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    located = checkpoint.tensors.get(name)
    if located is None:
        raise MissingTensor(str(checkpoint.path), name)
    if located.entry.shape != shape:
        raise ShapeMismatch(located.file.path, name, shape, located.entry.shape)
    require_weight_dtype(name, located)


def _lay_out(groups: Sequence[Group], dtype: torch.dtype, device: Device) -> list[torch.Tensor]:
    """One allocation for all weights; each group begins aligned and is stacked in it."""
    step = ALIGNMENT // dtype.itemsize
    sizes = [math.prod(group.shape) for group in groups]
    padded = [math.ceil(size / step) * step for size in sizes]
    arena = device.empty((sum(padded),), dtype)
    parts = arena.split(padded)
    return [part[:size].view(group.shape) for part, size, group in zip(parts, sizes, groups, strict=True)]


def _fill(moves: Sequence[tuple[Located, torch.Tensor]], device: Device) -> None:
    """Read weights into place; those of another dtype pass through bounded buffers and are converted there."""
    others = deque(move for move in moves if TORCH_DTYPES[move[0].entry.dtype] != move[1].dtype)
    transfer([move for move in moves if TORCH_DTYPES[move[0].entry.dtype] == move[1].dtype], device)
    while others:
        batch, left = [], CONVERSION_BYTES
        while others and left > 0:
            located, target = others.popleft()
            left -= located.entry.nbytes
            batch.append((located, target, device.empty(target.shape, TORCH_DTYPES[located.entry.dtype])))
        transfer([(located, buffer) for located, _, buffer in batch], device)
        with device.guard():
            for _, target, buffer in batch:
                target.copy_(buffer)


def _layer(parts: Mapping[str, Group], stacked: Mapping[Group, torch.Tensor]) -> LayerWeights:
    """The stacked tensors of a layer's groups under their fields' names."""
    found = {field: stacked[group] for field, group in parts.items()}
    if "qk_norm" in found:
        found["qk_norm"] = found["qk_norm"].view(2, -1)
    return LayerWeights(**found)
