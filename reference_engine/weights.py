"""Which tensors a model needs, of which shape, and how they lie in device memory.

Tensors that one product uses (q, k, v; gate, up) lie next to each other, so that the fused weight of that
product is a view of them: no copy, no transpose, the checkpoint's own [out, in].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from reference_engine.errors import MissingTensor, ShapeMismatch
from reference_engine.loader import require_weight_dtype, transfer
from reference_engine.storage import DTYPE_NAMES, TORCH_DTYPES, CudaStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reference_engine.checkpoint import Checkpoint, Located
    from reference_engine.config import ModelConfig
    from reference_engine.device import Device

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


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one block; products are [out, in]."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    attention_out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


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


def load_weights(checkpoint: Checkpoint, config: ModelConfig, device: Device, dtype: str | None) -> Weights:
    """Check every tensor against the configuration, then load what the model needs; other tensors are let be.

    Args:
        checkpoint: Open files.
        config: Its configuration.
        device: Where to.
        dtype: F32, F16 or BF16 to compute in; None keeps the file's, or takes F32 if it mixes dtypes.

    Raises:
        MissingTensor, ShapeMismatch, UnsupportedDtype: Before anything is allocated.
        OutOfDeviceMemory: The device has too little free.
    """
    tied = config.tie_word_embeddings and LM_HEAD not in checkpoint.tensors
    groups = []
    for group in _groups(config, tied=tied):
        for name, shape in group.members:
            _check(checkpoint, name, shape)
        groups.append(group)
    names = [name for group in groups for name, _ in group.members]
    found = {checkpoint.tensors[name].entry.dtype for name in names}
    target = TORCH_DTYPES[dtype or (found.pop() if len(found) == 1 else "F32")]
    stacked = _lay_out(groups, target, device)
    tensors = {name: part for group, whole in zip(groups, stacked, strict=True) for name, part in _split(group, whole)}
    _fill([(checkpoint.tensors[name], tensors[name]) for name in names], device)
    return Weights(
        storages={name: CudaStorage(device, tensor) for name, tensor in tensors.items()},
        embedding=tensors[EMBEDDING],
        layers=tuple(_layers(stacked[:-2] if tied else stacked[:-3], config)),
        final_norm=tensors[FINAL_NORM],
        lm_head=tensors[EMBEDDING if tied else LM_HEAD],
        dtype=target,
    )


def _groups(config: ModelConfig, *, tied: bool) -> Iterator[Group]:
    """Everything the model needs, in memory order: the layers, then norm, embedding and head."""
    hidden, wide = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        projections = ((f"{attention}.q_proj", queries), (f"{attention}.k_proj", keys), (f"{attention}.v_proj", keys))
        yield Group(((f"{prefix}.input_layernorm.weight", (hidden,)),))
        yield Group(tuple((f"{name}.weight", (rows, hidden)) for name, rows in projections))
        if config.qkv_bias:
            yield Group(tuple((f"{name}.bias", (rows,)) for name, rows in projections))
        yield Group(((f"{attention}.o_proj.weight", (hidden, queries)),))
        yield Group(((f"{prefix}.post_attention_layernorm.weight", (hidden,)),))
        yield Group(((f"{mlp}.gate_proj.weight", (wide, hidden)), (f"{mlp}.up_proj.weight", (wide, hidden))))
        yield Group(((f"{mlp}.down_proj.weight", (hidden, wide)),))
    yield Group(((FINAL_NORM, (hidden,)),))
    yield Group(((EMBEDDING, (config.vocab_size, hidden)),))
    if not tied:
        yield Group(((LM_HEAD, (config.vocab_size, hidden)),))


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


def _split(group: Group, whole: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    parts = whole.split([shape[0] for _, shape in group.members])
    yield from zip((name for name, _ in group.members), parts, strict=True)


def _fill(moves: Sequence[tuple[Located, torch.Tensor]], device: Device) -> None:
    """Read weights into place; those of another dtype pass through bounded buffers and are converted there."""
    transfer([move for move in moves if DTYPE_NAMES[move[1].dtype] == move[0].entry.dtype], device)
    batch: list[tuple[Located, torch.Tensor]] = []
    for move in moves:
        if DTYPE_NAMES[move[1].dtype] == move[0].entry.dtype:
            continue
        batch.append(move)
        if sum(located.entry.nbytes for located, _ in batch) >= CONVERSION_BYTES:
            _convert(batch, device)
            batch = []
    _convert(batch, device)


def _convert(batch: Sequence[tuple[Located, torch.Tensor]], device: Device) -> None:
    buffers = [device.empty(move[0].entry.shape, TORCH_DTYPES[move[0].entry.dtype]) for move in batch]
    transfer([(located, buffer) for (located, _), buffer in zip(batch, buffers, strict=True)], device)
    with device.guard():
        for (_, target), buffer in zip(batch, buffers, strict=True):
            target.copy_(buffer)


def _layers(stacked: Sequence[torch.Tensor], config: ModelConfig) -> Iterator[LayerWeights]:
    """Group the stacked tensors of `_groups` layer by layer."""
    count = len(stacked) // config.num_layers
    for begin in range(0, len(stacked), count):
        norm, qkv, *rest = stacked[begin : begin + count]
        bias = rest.pop(0) if config.qkv_bias else None
        yield LayerWeights(norm, qkv, bias, *rest)
