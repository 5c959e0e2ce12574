"""Decoding rate at Qwen2.5-1.5B's geometry, eager and through CUDA graphs, beside what the memory can deliver.

Run on a machine with a GPU: `python tests/gpu/bench_decode.py [F32] [BF16]`. Makes the checkpoint on first use.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import torch

from conformance.corpus.geometry import geometry_checkpoint
from reference_engine.device import Device
from reference_engine.generate import GenerationRequest
from reference_engine.model import SafeTensorsCudaModel

PROMPT = [(37 * i * i + 11) % 150_000 for i in range(32)]
NEW_TOKENS = 400
READ_BYTES = 4 << 30


class Rate(NamedTuple):
    """One measurement: decoding rate, the weights' bytes a second it implies, and seconds to the first id."""

    name: str
    tokens_per_second: float
    gigabytes_per_second: float
    share: float
    first_seconds: float
    ids: list[int]

    def __str__(self):
        return (
            f"{self.name}: {self.tokens_per_second:.1f} tok/s, {self.gigabytes_per_second:.0f} GB/s of weights,"
            f" {self.share:.0%} of the measured read rate; first id after {self.first_seconds * 1000:.1f} ms"
        )


def read_rate(device: Device) -> float:
    """GB/s of summing a large tensor, the best of ten."""
    data = torch.zeros(READ_BYTES // 4, device=device.torch)
    seconds = []
    for _ in range(10):
        device.synchronize()
        start = time.perf_counter()
        data.sum()
        device.synchronize()
        seconds.append(time.perf_counter() - start)
    return READ_BYTES / min(seconds) / 1e9


def weights_read_per_step(model: SafeTensorsCudaModel) -> int:
    """Bytes of all weights that a step multiplies by: everything but an embedding that is not also the head."""
    weights = model.weights
    return weights.nbytes - (0 if weights.embedding is weights.lm_head else weights.embedding.nbytes)


def measure(device: Device, dtype: str, limit: float, new_tokens: int = NEW_TOKENS) -> list[Rate]:
    """Eager and graph: a first request (with the recording), then the median of three."""
    rates = []
    for graphs in (False, True):
        model = SafeTensorsCudaModel.from_safetensors(geometry_checkpoint(dtype), device, graphs=graphs)
        request = GenerationRequest(PROMPT, new_tokens, ignore_eos=True)
        for turn in ("first", "warm"):
            repeats = [model.generate(request) for _ in range(1 if turn == "first" else 3)]
            outcome = sorted(repeats, key=lambda done: done.tokens_per_second)[len(repeats) // 2]
            bandwidth = outcome.tokens_per_second * weights_read_per_step(model) / 1e9
            name = f"{dtype} {'graph' if graphs else 'eager'} {turn}"
            first = outcome.prefill_seconds
            rates.append(Rate(name, outcome.tokens_per_second, bandwidth, bandwidth / limit, first, list(outcome.ids)))
        model.unload()
    return rates


def main() -> None:
    with Device(0) as device:
        limit = read_rate(device)
        device.trim()
        sys.stdout.write(f"{device.name}: {limit:.0f} GB/s read\n")
        for dtype in sys.argv[1:] or ["F32", "BF16"]:
            torch.cuda.reset_peak_memory_stats(device.torch)
            for rate in measure(device, dtype, limit):
                sys.stdout.write(f"{rate}\n")
            peak = torch.cuda.max_memory_reserved(device.torch)
            sys.stdout.write(f"{dtype}: at most {peak / 1e9:.2f} GB held by the allocator\n")


if __name__ == "__main__":
    main()
