"""A decoding step by fused kernels: six a layer, in place over fixed memory."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from reference_engine.kernels.attention import attend, combine
from reference_engine.kernels.linear import gate_up, head, project
from reference_engine.kernels.plan import Plan, Tile, power_of_two
from reference_engine.kernels.tokens import choose, embed

if TYPE_CHECKING:
    from reference_engine.config import ModelConfig
    from reference_engine.decode import DecodeState
    from reference_engine.device import Device
    from reference_engine.model import SafeTensorsCudaModel
    from reference_engine.weights import LayerWeights

EMBED_BLOCK = 1024


class Scratch:
    """Memory of a step's intermediate results, all F32 but the last: allocated once a request.

    Args:
        config: The model's.
        plan: Its kernels'.
        capacity: Of the KV cache.
        device: Where to.

    Raises:
        OutOfDeviceMemory: No room.
    """

    def __init__(self, config: ModelConfig, plan: Plan, capacity: int, device: Device) -> None:
        heads, groups, size = config.num_heads, config.num_kv_heads, config.head_dim
        chunks = -(-capacity // plan.attention.positions)
        programs = head_programs(config, plan)

        def floats(*shape: int) -> torch.Tensor:
            return device.empty(shape, torch.float32)

        self.hidden = floats(config.hidden_size)
        self.qkv = floats((heads + 2 * groups) * size)
        self.mixed = floats(heads * size)
        self.wide = floats(config.intermediate_size)
        self.logits = floats(config.vocab_size)
        self.partial = floats(heads, chunks, size)
        self.partial_peaks = floats(heads, chunks)
        self.partial_sums = floats(heads, chunks)
        self.peaks = floats(programs)
        self.peak_ids = device.empty((programs,), torch.int32)


class FusedStep:
    """The kernels of one model in their order. As a `Step` it gives logits; `advance` chooses the next id.

    Args:
        config: The model's.
        plan: Launch configurations.
    """

    def __init__(self, config: ModelConfig, plan: Plan) -> None:
        self.config = config
        self.plan = plan

    def __call__(self, model: SafeTensorsCudaModel, state: DecodeState, length: int) -> torch.Tensor:
        """Logits F32 [vocab] after `state.token` at `state.position`."""
        weights, cache = model.weights, state.cache
        scratch = self.scratch(state, model.device)
        width = self.config.hidden_size
        embed[(-(-width // EMBED_BLOCK),)](
            state.token, weights.embedding, scratch.hidden, width, BLOCK=EMBED_BLOCK, OVERLAP=self.plan.overlap
        )
        for layer, pairs in zip(weights.layers, cache.pairs, strict=True):
            self._layer(layer, pairs, state, length)
        limit = self.config.vocab_size if state.id_limit is None else state.id_limit
        head[(scratch.peaks.numel(),)](
            scratch.hidden, weights.final_norm, weights.lm_head, scratch.logits, scratch.peaks, scratch.peak_ids,
            limit, self.config.rms_norm_eps, *weights.lm_head.shape, **self._tile(self.plan.head, width),
        )  # fmt: skip
        return scratch.logits

    def advance(self, state: DecodeState, logits: torch.Tensor) -> None:
        """Choose the next id from what the step left, note it, and move on."""
        scratch = state.scratch
        count = scratch.peaks.numel()
        choose[(1,)](
            scratch.peaks, scratch.peak_ids, logits, state.token, state.position, state.ids, state.peaks,
            COUNT=count, BLOCK=power_of_two(count), **self._launch(8),
        )  # fmt: skip

    def scratch(self, state: DecodeState, device: Device) -> Scratch:
        """The request's scratch memory, made at its first step."""
        scratch: Scratch = state.scratch or Scratch(self.config, self.plan, state.cache.capacity, device)
        state.scratch = scratch
        return scratch

    def _layer(self, layer: LayerWeights, pairs: torch.Tensor, state: DecodeState, length: int) -> None:
        eps, plan, scratch = self.config.rms_norm_eps, self.plan, state.scratch
        hidden = scratch.hidden
        qkv = {"NORM": True, "BIAS": layer.qkv_bias is not None, "RESIDUAL": False}
        self._project(layer.qkv, hidden, layer.attention_norm, layer.qkv_bias, scratch.qkv, plan.qkv, qkv)
        self._attend(pairs, state, length)
        grow = {"NORM": False, "BIAS": False, "RESIDUAL": True}
        self._project(layer.attention_out, scratch.mixed, None, None, hidden, plan.out, grow)
        rows, width = layer.gate_up.shape[0] // 2, layer.gate_up.shape[1]
        gate_up[(-(-rows // plan.gate_up.rows),)](
            hidden, layer.mlp_norm, layer.gate_up, scratch.wide, eps, rows, width, **self._tile(plan.gate_up, width)
        )
        self._project(layer.down, scratch.wide, None, None, hidden, plan.down, grow)

    def _project(
        self,
        weight: torch.Tensor,
        x: torch.Tensor,
        norm: torch.Tensor | None,
        bias: torch.Tensor | None,
        out: torch.Tensor,
        tile: Tile,
        flags: dict[str, bool],
    ) -> None:
        rows, width = weight.shape
        # A pointer that is never followed stands for what is absent.
        norm, bias = weight if norm is None else norm, weight if bias is None else bias
        project[(-(-rows // tile.rows),)](
            x, norm, weight, bias, out, self.config.rms_norm_eps, rows, width, **flags, **self._tile(tile, width)
        )

    def _attend(self, pairs: torch.Tensor, state: DecodeState, length: int) -> None:
        config, split, scratch, cache = self.config, self.plan.attention, state.scratch, state.cache
        heads, groups, size = config.num_heads, config.num_kv_heads, config.head_dim
        per, chunks = split.per_program(heads // groups), -(-length // split.positions)
        attend[(heads // per, chunks)](
            scratch.qkv, cache.cos, cache.sin, pairs, state.position,
            scratch.partial, scratch.partial_peaks, scratch.partial_sums, cache.capacity,
            HEADS=heads, GROUPS=groups, D=size, PER=per, N=split.positions, BLOCK_D=power_of_two(size),
            **self._launch(split.warps),
        )  # fmt: skip
        columns = min(split.columns, power_of_two(size))
        combine[(heads, -(-size // columns))](
            scratch.partial, scratch.partial_peaks, scratch.partial_sums, state.position, scratch.mixed, chunks,
            D=size, N=split.positions, BLOCK=columns, AT_ONCE=split.at_once, **self._launch(4),
        )  # fmt: skip

    def _tile(self, tile: Tile, width: int) -> dict[str, Any]:
        fitted = tile.within(width)
        names = {"ROWS": fitted.rows, "BLOCK_K": fitted.columns, "UNROLL": fitted.unroll, "LINES": fitted.lines}
        return names | self._launch(tile.warps)

    def _launch(self, warps: int) -> dict[str, Any]:
        options = {"OVERLAP": self.plan.overlap, "num_warps": warps}
        # Compilers of other devices do not know the option.
        return options | {"launch_pdl": True} if self.plan.overlap else options


def head_programs(config: ModelConfig, plan: Plan) -> int:
    """Programs of the head's kernel: at most the plan's, at most one a block of rows."""
    return min(plan.head.programs, -(-config.vocab_size // plan.head.rows))


def without_overlap(plan: Plan) -> Plan:
    """The same plan for devices without dependent launch."""
    return dataclasses.replace(plan, overlap=False)
