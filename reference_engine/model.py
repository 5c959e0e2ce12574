"""The Qwen2 and Llama decoder: RMSNorm, rotary attention with grouped heads, SwiGLU, over a KV cache.

transformers' implementation is the definition: norms and softmax in F32, the norm cast back before its weight,
rotary angles in F32 and rotate-half. Shapes: T new positions, H query heads, G key-value heads, D head size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import torch
from torch.nn import functional as F

from reference_engine.checkpoint import Checkpoint
from reference_engine.config import ModelConfig, read_config
from reference_engine.errors import ClosedHandle, ContextTooLong, InvalidArgument
from reference_engine.generate import generate
from reference_engine.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reference_engine.device import Device
    from reference_engine.generate import GenerationRequest, Outcome
    from reference_engine.weights import LayerWeights, Weights

PREFILL_CHUNK = 1024


class KvCache:
    """Keys and values of one request, preallocated: [layers, G, capacity, D] each, and how much is filled.

    Rotary factors for its positions lie beside it: `cos` and `sin`, [capacity, D], the first half of `sin`
    negated, so that rotate-half is a roll and a product.
    """

    def __init__(self, config: ModelConfig, device: Device, dtype: torch.dtype, capacity: int) -> None:
        shape = (2, config.num_layers, config.num_kv_heads, capacity, config.head_dim)
        self.keys, self.values = device.empty(shape, dtype)
        self.capacity = capacity
        self.filled = 0
        angles = torch.outer(torch.arange(capacity, dtype=torch.float32), inverse_frequencies(config))
        cos, sin = angles.cos(), angles.sin()
        self.cos = torch.cat((cos, cos), dim=-1).to(device.torch, dtype)
        self.sin = torch.cat((-sin, sin), dim=-1).to(device.torch, dtype)


class SafeTensorsCudaModel:
    """A loaded model. `generate` needs `prompt_ids` only; the tokenizer lives outside."""

    def __init__(self, config: ModelConfig, weights: Weights, device: Device) -> None:
        self.config = config
        self.device = device
        self._weights: Weights | None = weights

    @classmethod
    def from_safetensors(cls, path: str | Path, device: Device, dtype: str | None = None) -> Self:
        """Load a checkpoint onto a device; configuration and tensors are checked before anything is allocated.

        Args:
            path: A checkpoint directory, its `.safetensors` file, or its index.
            device: An open device.
            dtype: F32, F16 or BF16 to compute in; None keeps the file's.

        Raises:
            EngineError: One of `reference_engine.errors`, by cause.
        """
        if dtype not in {None, "F32", "F16", "BF16"}:
            raise InvalidArgument("dtype", f"{dtype!r} is none of F32, F16 and BF16")
        with Checkpoint(path) as checkpoint:
            config = read_config(checkpoint.directory)
            return cls(config, load_weights(checkpoint, config, device, dtype), device)

    @property
    def weights(self) -> Weights:
        """The weights on the device.

        Raises:
            ClosedHandle: The model was unloaded.
        """
        self.device.require_open()
        if self._weights is None:
            raise ClosedHandle("the model")
        return self._weights

    @property
    def used_gpu(self) -> bool:
        """Whether the weights lie on a GPU, by the tensors' own word."""
        return all(storage.tensor.is_cuda for storage in self.weights.storages.values())

    def new_cache(self, capacity: int) -> KvCache:
        """An empty KV cache for `capacity` positions.

        Raises:
            ContextTooLong: More than the model has positions.
            OutOfDeviceMemory: The device has too little free.
        """
        if capacity > self.config.max_positions:
            raise ContextTooLong(capacity, self.config.max_positions)
        return KvCache(self.config, self.device, self.weights.dtype, capacity)

    def logits(self, ids: Sequence[int], last: int | None = None) -> torch.Tensor:
        """Teacher-forced logits of the last `last` positions of `ids` (all when None): F32 [n, vocab].

        Raises:
            InvalidArgument: No ids, ids outside the vocabulary, or `last` below 1.
            ContextTooLong: More ids than positions.
        """
        self.check_ids(ids)
        if last is not None and last < 1:
            raise InvalidArgument("last", f"{last} is not at least 1")
        return self.prefill(ids, self.new_cache(len(ids)), last=last or len(ids))

    def generate(self, request: GenerationRequest, id_limit: int | None = None) -> Outcome:
        """Generate to the end; see `reference_engine.generate.generate`, which also streams.

        Raises:
            InvalidArgument, ContextTooLong, OutOfDeviceMemory, NonFiniteLogits: By cause.
        """
        outcome, ids = generate(self, request, id_limit)
        for _ in ids:
            pass
        return outcome

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise InvalidArgument unless there are ids and all are within the vocabulary."""
        if not ids:
            raise InvalidArgument("prompt", "it is empty, and this model has no BOS token to start from")
        for token in ids:
            if not 0 <= token < self.config.vocab_size:
                raise InvalidArgument("prompt", f"token id {token} is not below {self.config.vocab_size}")

    @torch.inference_mode()
    def prefill(self, ids: Sequence[int], cache: KvCache, last: int = 1) -> torch.Tensor:
        """Push `ids` through the model in chunks; logits of the last `last` positions, F32 [last, vocab]."""
        tokens = torch.tensor(ids, device=self.device.torch)
        first = len(ids) - last
        found = []
        with self.device.guard():
            for begin in range(0, len(ids), PREFILL_CHUNK):
                hidden = self.forward(tokens[begin : begin + PREFILL_CHUNK], cache)
                if begin + len(hidden) > first:
                    found.append(self.head(hidden[max(0, first - begin) :]))
        return torch.cat(found) if len(found) > 1 else found[0]

    @torch.inference_mode()
    def decode(self, token: torch.Tensor, cache: KvCache) -> torch.Tensor:
        """One step: push `token` ([1], on the device) through the model; logits F32 [vocab]."""
        with self.device.guard():
            return self.head(self.forward(token, cache))[0]

    def forward(self, tokens: torch.Tensor, cache: KvCache) -> torch.Tensor:
        """Hidden states [T, hidden] of `tokens` [T] at the next T positions of the cache."""
        weights, begin = self.weights, cache.filled
        end = begin + len(tokens)
        mask = _causal_mask(begin, end, self.device.torch) if len(tokens) > 1 else None
        hidden = F.embedding(tokens, weights.embedding)
        for index, layer in enumerate(weights.layers):
            hidden = hidden + self._attention(self._norm(hidden, layer.attention_norm), layer, index, cache, mask)
            hidden = hidden + _swiglu(self._norm(hidden, layer.mlp_norm), layer)
        cache.filled = end
        return hidden

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits F32 [T, vocab] of hidden states [T, hidden]."""
        return F.linear(self._norm(hidden, self.weights.final_norm), self.weights.lm_head).float()

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), weight.shape, eps=self.config.rms_norm_eps).to(x.dtype) * weight

    def _attention(
        self, x: torch.Tensor, layer: LayerWeights, index: int, cache: KvCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        config, count = self.config, len(x)
        groups, size = config.num_kv_heads, config.head_dim
        begin, end = cache.filled, cache.filled + count
        qkv = F.linear(x, layer.qkv, layer.qkv_bias).view(count, -1, size)
        rotated = _rotate(qkv[:, :-groups], cache.cos[begin:end], cache.sin[begin:end])
        cache.keys[index, :, begin:end] = rotated[:, -groups:].transpose(0, 1)
        cache.values[index, :, begin:end] = qkv[:, -groups:].transpose(0, 1)
        keys, values = cache.keys[index, :, :end], cache.values[index, :, :end]
        # The H / G query heads of a group attend to the same keys: they are rows of one product.
        queries = rotated[:, :-groups].view(count, groups, -1, size).permute(1, 2, 0, 3)
        scores = queries.reshape(groups, -1, size) @ keys.transpose(1, 2) * size**-0.5
        scores = scores.view(groups, -1, count, end)
        if mask is not None:
            scores = scores + mask
        shares = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)
        mixed = shares.view(groups, -1, end) @ values
        return F.linear(mixed.view(groups, -1, count, size).permute(2, 0, 1, 3).reshape(count, -1), layer.attention_out)

    def unload(self) -> None:
        """Drop all weights and give their memory back; unloading twice is harmless."""
        if self._weights is not None:
            for storage in self._weights.storages.values():
                storage.drop()
            self._weights = None
            self.device.trim()


def inverse_frequencies(config: ModelConfig) -> torch.Tensor:
    """Rotary frequencies, F32 [D / 2], with Llama 3.1's stretching of long wavelengths where configured."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    turns = scaling.original_positions / wavelengths
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blended = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    stretched = torch.where(turns < scaling.low_freq_factor, frequencies / scaling.factor, blended)
    return torch.where(turns > scaling.high_freq_factor, frequencies, stretched)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate-half of [T, heads, D] by factors [T, D]; see `KvCache` for the sign."""
    return x * cos[:, None] + x.roll(x.shape[-1] // 2, dims=-1) * sin[:, None]


def _causal_mask(begin: int, end: int, device: torch.device) -> torch.Tensor:
    """0 where a new position may look, minus infinity after it: [end - begin, end]."""
    mask = torch.full((end - begin, end), -math.inf, device=device)
    return mask.triu_(begin + 1)


def _swiglu(x: torch.Tensor, layer: LayerWeights) -> torch.Tensor:
    gate, up = F.linear(x, layer.gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, layer.down)
