"""One decoder for the families of `config.FAMILIES`: RMSNorm, rotary attention with grouped heads, SwiGLU, KV cache.

What a family has beyond that (biases, norms of queries and keys, sliding windows) is a flag of the configuration.

transformers' implementation is the definition: norms and softmax in F32, the norm cast back before its weight,
rotary angles in F32 and rotate-half. Shapes: T new positions, H query heads, G key-value heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch.nn import functional as F

from reference_engine.checkpoint import Checkpoint
from reference_engine.config import ModelConfig, read_config
from reference_engine.decode import Decoder
from reference_engine.device import Device
from reference_engine.errors import ClosedHandle, ContextTooLong, InvalidArgument
from reference_engine.generate import GenerationRequest, Outcome, generate
from reference_engine.storage import TORCH_DTYPES
from reference_engine.warmup import warming_up
from reference_engine.weights import LayerWeights, Weights, load_weights

PREFILL_CHUNK = 1024


class KvCache:
    """Keys and values of one request, preallocated: `pairs`, [layers, 2, G, capacity, D].

    Rotary factors for its positions lie beside it: `cos` and `sin`, [capacity, D], the first half of `sin`
    negated, so that rotate-half is a roll and a product.
    """

    def __init__(self, config: ModelConfig, device: Device, dtype: torch.dtype, capacity: int) -> None:
        self.pairs = device.empty((config.num_layers, 2, config.num_kv_heads, capacity, config.head_dim), dtype)
        self.capacity = capacity
        angles = torch.outer(torch.arange(capacity, dtype=torch.float32), inverse_frequencies(config))
        cos, sin = angles.cos(), angles.sin()
        self.cos = torch.cat((cos, cos), dim=-1).to(device.torch, dtype)
        self.sin = torch.cat((-sin, sin), dim=-1).to(device.torch, dtype)


class Place(NamedTuple):
    """Where tokens stand, the same for all layers: positions [T], rotary factors [T, 1, D], masks [T, length].

    There is a mask for each window that some layer has; None is the plain causal one.
    """

    positions: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    masks: dict[int | None, torch.Tensor]


class SafeTensorsCudaModel:
    """A loaded model. `generate` needs `prompt_ids` only; the tokenizer lives outside.

    `decoder` is how it decodes: through CUDA graphs or eagerly.
    """

    def __init__(self, config: ModelConfig, weights: Weights, device: Device, decoder: Decoder) -> None:
        self.config = config
        self.device = device
        self.decoder = decoder
        self._weights: Weights | None = weights

    @classmethod
    def from_safetensors(
        cls,
        source: Checkpoint | str | Path,
        device: Device,
        dtype: str | None = None,
        graphs: bool | None = None,
        id_limit: int | None = None,
    ) -> Self:
        """Load a checkpoint onto a device; configuration and tensors are checked before anything is allocated.

        Args:
            source: An open checkpoint, or the path of one: a directory, its `.safetensors` file or index, or a
                GGUF or APR file.
            device: An open device.
            dtype: F32, F16 or BF16 to compute in; None keeps the file's.
            graphs: Decode through CUDA graphs; None does so on a GPU.
            id_limit: That of the requests to come: on a GPU, the first of them finds everything ready.

        Raises:
            EngineError: One of `reference_engine.errors`, by cause.
        """
        if graphs and not device.is_cuda:
            raise InvalidArgument("graphs", "CUDA graphs need a CUDA device")
        decoder = Decoder(graphs=device.is_cuda if graphs is None else graphs)
        if dtype not in {None, *TORCH_DTYPES}:
            raise InvalidArgument("dtype", f"{dtype!r} is none of F32, F16 and BF16")
        with nullcontext(source) if isinstance(source, Checkpoint) else Checkpoint(source) as checkpoint:
            config = read_config(checkpoint.side_files)

            def meanwhile(weights: Weights) -> AbstractContextManager[None]:
                # A record of its own: nobody shall take what has not arrived for what was loaded.
                return warming_up(cls(config, replace(weights), device, decoder), id_limit)

            return cls(config, load_weights(checkpoint, config, device, dtype, meanwhile), device, decoder)

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
        """Push `ids` in chunks, from position 0 on; logits of the last `last` positions, F32 [last, vocab]."""
        tokens = torch.tensor(ids, device=self.device.torch)
        positions = torch.arange(len(ids), device=self.device.torch)
        first = len(ids) - last
        found = []
        with self.device.guard():
            for begin in range(0, len(ids), PREFILL_CHUNK):
                end = min(begin + PREFILL_CHUNK, len(ids))
                hidden = self.forward(tokens[begin:end], positions[begin:end], end, cache)
                if end > first:
                    found.append(self.head(hidden[max(0, first - begin) :]))
        return torch.cat(found) if len(found) > 1 else found[0]

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor, length: int, cache: KvCache) -> torch.Tensor:
        """Hidden states [T, hidden] of `tokens` [T] at `positions` [T], whose keys and values enter the cache.

        Attention spans the first `length` positions of the cache, of which each token sees those up to its own.
        """
        weights, windows = self.weights, self.config.windows
        place = Place(
            positions,
            cache.cos.index_select(0, positions)[:, None],
            cache.sin.index_select(0, positions)[:, None],
            {window: _causal_mask(positions, length, window, weights.dtype) for window in dict.fromkeys(windows)},
        )
        hidden = F.embedding(tokens, weights.embedding)
        for layer, window, pairs in zip(weights.layers, windows, cache.pairs, strict=True):
            mixed = self._attention(self._norm(hidden, layer.attention_norm), layer, pairs, place, window)
            _add_product(hidden, mixed, layer.attention_out, layer.attention_out_bias)
            _add_product(hidden, _swiglu(self._norm(hidden, layer.mlp_norm), layer), layer.down, layer.down_bias)
        return hidden

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits F32 [T, vocab] of hidden states [T, hidden]."""
        return F.linear(self._norm(hidden, self.weights.final_norm), self.weights.lm_head).float()

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMSNorm of the last dimension, in F32 inside the kernel for any dtype and cast back before the weight."""
        if x.dtype == torch.float32:
            return F.rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)
        return F.rms_norm(x, weight.shape, eps=self.config.rms_norm_eps).mul_(weight)

    def _attention(
        self, x: torch.Tensor, layer: LayerWeights, pairs: torch.Tensor, place: Place, window: int | None
    ) -> torch.Tensor:
        """Heads [T, H * D] before the output product; `pairs` [2, G, capacity, D] is the layer's cache."""
        mask = place.masks[window]
        (_, groups, _, size), (count, length) = pairs.shape, mask.shape
        qkv = F.linear(x, layer.qkv, layer.qkv_bias).view(count, -1, size)
        if layer.qk_norm is not None:
            both = (qkv[:, : -2 * groups], qkv[:, -2 * groups : -groups])
            for heads, weight in zip(both, layer.qk_norm, strict=True):
                heads.copy_(self._norm(heads, weight))
        _rotate(qkv[:, :-groups], place.cos, place.sin)
        new = qkv[:, -2 * groups :].view(count, 2, groups, size)
        pairs.index_copy_(2, place.positions, new.permute(1, 2, 0, 3))
        keys, values = pairs[:, :, :length]
        # The H / G query heads of a group attend to the same keys: they are rows of one product.
        queries = qkv[:, : -2 * groups].view(count, groups, -1, size).permute(1, 2, 0, 3).reshape(groups, -1, size)
        # Product and scale in one kernel; what is added is ignored by beta=0.
        scores = torch.baddbmm(queries[:, :1, :1], queries, keys.transpose(1, 2), beta=0, alpha=size**-0.5)
        scores.view(groups, -1, count, length).add_(mask)
        mixed: torch.Tensor = scores.softmax(dim=-1) @ values
        return mixed.view(groups, -1, count, size).permute(2, 0, 1, 3).reshape(count, -1)

    def unload(self) -> None:
        """Drop all weights and give their memory back; unloading twice is harmless."""
        if self._weights is not None:
            for storage in self._weights.storages.values():
                storage.drop()
            self._weights = None
            self.decoder.release()
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


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotate-half of [T, heads, D] in place, by factors [T, 1, D]; see `KvCache` for the sign."""
    halves_swapped = x.roll(x.shape[-1] // 2, dims=-1)
    x.mul_(cos).addcmul_(halves_swapped, sin)


def _causal_mask(positions: torch.Tensor, length: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
    """0 where a token at `positions` [T] may look, minus infinity elsewhere: [T, length].

    It sees itself and what is before it; with a window, the last `window` of these.
    """
    there = torch.arange(length, device=positions.device)
    hidden = there > positions[:, None]
    if window is not None:
        hidden |= there <= positions[:, None] - window
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(hidden, -math.inf)


def _add_product(hidden: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Add `x` times `weight` [out, in], and the bias if there is one, to `hidden`: product and residual in one go."""
    hidden.addmm_(x, weight.T)
    if bias is not None:
        hidden.add_(bias)


def _swiglu(x: torch.Tensor, layer: LayerWeights) -> torch.Tensor:
    """SiLU(gate) * up, [T, intermediate], before the output product."""
    gate, up = F.linear(x, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
