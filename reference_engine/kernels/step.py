"""A decoding step by fused kernels: five or six a layer, in place over fixed memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from reference_engine.kernels.attention import attend, combine
from reference_engine.kernels.linear import gate_up, head, project
from reference_engine.kernels.loading import load_all
from reference_engine.kernels.plan import Plan, Tile, power_of_two
from reference_engine.kernels.tokens import choose, embed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference_engine.config import ModelConfig
    from reference_engine.decode import DecodeState
    from reference_engine.device import Device
    from reference_engine.model import SafeTensorsCudaModel
    from reference_engine.weights import LayerWeights

EMBED_BLOCK = 1024
# Said to every kernel, as versions of Triton differ in what they take for granted, and results must not.
FUSED_PRODUCTS = {"enable_fp_fusion": True}


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
        programs = min(plan.head.programs, -(-config.vocab_size // plan.head.rows))

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
        self.arrivals = device.empty((heads,), torch.int32).zero_()
        self.peaks = floats(programs)
        self.peak_ids = device.empty((programs,), torch.int32)


@dataclass(frozen=True)
class Launch:
    """A kernel, how many programs of it, its arguments, its compile-time constants and options."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]

    def run(self) -> None:
        """Queue it on the current stream of the current device."""
        self.kernel[self.grid](*self.arguments, **self.constants)

    def compile(self) -> Any:
        """The compiled kernel, perhaps of Triton's cache; it is not on the device yet."""
        return self.kernel.warmup(*self.arguments, grid=self.grid, **self.constants)


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
        for launch in self._launches(model, state, length, model.weights.layers):
            launch.run()
        logits: torch.Tensor = state.scratch.logits
        return logits

    def advance(self, state: DecodeState, _logits: torch.Tensor) -> None:
        """Choose the next id from what the step left, note it, and move on."""
        self._choice(state).run()

    def load(self, model: SafeTensorsCudaModel, state: DecodeState, length: int) -> None:
        """Compile and load every kernel of the step; nothing runs.

        Raises:
            Exception: Whatever Triton raises where it cannot.
        """
        launches = [*self._launches(model, state, length, model.weights.layers[:1]), self._choice(state)]
        load_all(launches, model.device.torch)

    def _launches(
        self, model: SafeTensorsCudaModel, state: DecodeState, length: int, layers: tuple[LayerWeights, ...]
    ) -> Iterator[Launch]:
        weights, config, plan = model.weights, self.config, self.plan
        scratch = state.scratch = state.scratch or Scratch(config, plan, state.cache.capacity, model.device)
        width = config.hidden_size
        yield Launch(
            embed, (-(-width // EMBED_BLOCK),), (state.token, weights.embedding, scratch.hidden, width),
            {"BLOCK": EMBED_BLOCK, "OVERLAP": plan.overlap} | FUSED_PRODUCTS,
        )  # fmt: skip
        for layer, pairs in zip(layers, state.cache.pairs, strict=False):
            yield from self._layer(layer, pairs, state, length)
        limit = config.vocab_size if state.id_limit is None else state.id_limit
        yield Launch(
            head, (scratch.peaks.numel(),),
            (scratch.hidden, weights.final_norm, weights.lm_head, scratch.logits, scratch.peaks, scratch.peak_ids,
             limit, config.rms_norm_eps, *weights.lm_head.shape),
            self._tile(plan.head, width),
        )  # fmt: skip

    def _layer(self, layer: LayerWeights, pairs: torch.Tensor, state: DecodeState, length: int) -> Iterator[Launch]:
        eps, plan, scratch = self.config.rms_norm_eps, self.plan, state.scratch
        hidden, wide = scratch.hidden, scratch.wide
        read = {"NORM": True, "BIAS": layer.qkv_bias is not None, "RESIDUAL": False}
        yield self._project(layer.qkv, hidden, layer.attention_norm, layer.qkv_bias, scratch.qkv, plan.qkv, read)
        yield from self._attend(pairs, state, length)
        grow = {"NORM": False, "BIAS": False, "RESIDUAL": True}
        yield self._project(layer.attention_out, scratch.mixed, None, None, hidden, plan.out, grow)
        rows, width = layer.gate_up.shape[0] // 2, layer.gate_up.shape[1]
        yield Launch(
            gate_up, (-(-rows // plan.gate_up.rows),),
            (hidden, layer.mlp_norm, layer.gate_up, wide, eps, rows, width), self._tile(plan.gate_up, width),
        )  # fmt: skip
        yield self._project(layer.down, wide, None, None, hidden, plan.down, grow)

    def _project(
        self,
        weight: torch.Tensor,
        x: torch.Tensor,
        norm: torch.Tensor | None,
        bias: torch.Tensor | None,
        out: torch.Tensor,
        tile: Tile,
        flags: dict[str, bool],
    ) -> Launch:
        rows, width = weight.shape
        # A pointer that is never followed stands for what is absent.
        norm, bias = weight if norm is None else norm, weight if bias is None else bias
        arguments = (x, norm, weight, bias, out, self.config.rms_norm_eps, rows, width)
        return Launch(project, (-(-rows // tile.rows),), arguments, flags | self._tile(tile, width))

    def _attend(self, pairs: torch.Tensor, state: DecodeState, length: int) -> Iterator[Launch]:
        config, split, scratch, cache = self.config, self.plan.attention, state.scratch, state.cache
        heads, groups, size = config.num_heads, config.num_kv_heads, config.head_dim
        per, chunks = split.per_program(heads // groups), -(-length // split.positions)
        partial = (scratch.partial, scratch.partial_peaks, scratch.partial_sums)
        sizes = {"HEADS": heads, "GROUPS": groups, "D": size, "PER": per, "BLOCK_D": power_of_two(size)}
        yield Launch(
            attend, (heads // per, chunks),
            (scratch.qkv, cache.cos, cache.sin, pairs, state.position, *partial, scratch.arrivals, scratch.mixed,
             cache.capacity),
            sizes | {"N": split.positions, "AT_ONCE": split.at_once, "JOIN": split.join} | self._options(split.warps),
        )  # fmt: skip
        if split.join:
            return
        columns = min(split.columns, power_of_two(size))
        yield Launch(
            combine, (heads, -(-size // columns)), (*partial, state.position, scratch.mixed, chunks),
            {"D": size, "N": split.positions, "BLOCK": columns, "AT_ONCE": split.at_once} | self._options(4),
        )  # fmt: skip

    def _choice(self, state: DecodeState) -> Launch:
        scratch = state.scratch
        count = scratch.peaks.numel()
        return Launch(
            choose, (1,),
            (scratch.peaks, scratch.peak_ids, scratch.logits, state.token, state.position, state.ids, state.peaks),
            {"COUNT": count, "BLOCK": power_of_two(count)} | self._options(8),
        )  # fmt: skip

    def _tile(self, tile: Tile, width: int) -> dict[str, Any]:
        fitted = tile.within(width)
        names = {"ROWS": fitted.rows, "BLOCK_K": fitted.columns, "UNROLL": fitted.unroll, "LINES": fitted.lines}
        return names | self._options(tile.warps)

    def _options(self, warps: int) -> dict[str, Any]:
        options = {"OVERLAP": self.plan.overlap, "num_warps": warps} | FUSED_PRODUCTS
        # Compilers of other devices do not know the option.
        return options | {"launch_pdl": True} if self.plan.overlap else options
