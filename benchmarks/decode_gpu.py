"""Decode plans on a GPU: each checked against torch, then timed in CUDA graphs; rows as JSON lines, and a profile.

    python benchmarks/decode_gpu.py [--json FILE] [--seconds 60] [F32] [BF16]

A plan that is not bit-equal twice, or leaves torch's logits by more than the bound, is reported and not timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from decode_profile import moved_by, rows_of

from conformance.corpus.geometry import geometry_checkpoint
from reference_engine.decode import Decoder
from reference_engine.device import Device
from reference_engine.kernels.plan import Plan, Split, plan_of
from reference_engine.kernels.step import FusedStep
from reference_engine.model import SafeTensorsCudaModel

READ_BYTES = 4 << 30
# BF16: what torch rounds between kernels, these do not; see docs/notes/decode-kernels.md.
BOUND = {"F32": 5e-4, "BF16": 1.0}
STEPS, PROFILED = 96, 10
CONTEXTS = (256, 4096)
TILES = ("qkv", "out", "gate_up", "down", "head")


def plans(base: Plan) -> Iterator[tuple[str, Plan]]:
    """The base, then one change at a time."""
    yield "base", base
    yield "no overlap", dataclasses.replace(base, overlap=False)
    for at_once in (16, 32, 64):
        joined = dataclasses.replace(base, attention=dataclasses.replace(base.attention, at_once=at_once, join=True))
        yield f"joined, {at_once} at once", joined
        yield f"joined, {at_once} at once, no overlap", dataclasses.replace(joined, overlap=False)
    for positions, heads, warps in ((32, 1, 4), (64, 1, 8), (64, 1, 2), (128, 1, 8), (64, 2, 4)):
        split = Split(positions, heads, warps, at_once=base.attention.at_once)
        yield f"attention {split}", dataclasses.replace(base, attention=split)
    for name in TILES:
        tile = getattr(base, name)
        for change in ({"rows": 2 * tile.rows}, {"warps": 2 * tile.warps}, {"lines": 0}, {"lines": 2 * tile.lines}):
            changed = dataclasses.replace(tile, **change)
            yield f"{name} {changed}", dataclasses.replace(base, **{name: changed})


class Bench:
    """One model, torch's logits of a few steps, and the time of a step by plan."""

    def __init__(self, device: Device, dtype: str, limit: float) -> None:
        self.device, self.dtype, self.limit = device, dtype, limit
        self.model = SafeTensorsCudaModel.from_safetensors(geometry_checkpoint(dtype), device)
        self.prompt = [(37 * i * i + 11) % 150_000 for i in range(250)]
        self.expected = self.logits(Decoder(graphs=True))

    def decoder(self, plan: Plan) -> Decoder:
        """A decoder by this plan."""
        step = FusedStep(self.model.config, plan)
        return Decoder(graphs=True, step=step, advance=step.advance)

    def logits(self, decoder: Decoder) -> torch.Tensor:
        """Logits of eight steps of a fixed text, across a bucket's end."""
        with decoder.begin(self.model, self.prompt, 450, None) as decoding, torch.inference_mode():
            rows = []
            for token in range(8):
                decoding.feed(1000 + token)
                rows.append(decoding.step().clone())
            return torch.stack(rows)

    def row(self, name: str, plan: Plan) -> dict[str, Any]:
        """What a plan gives: its error, and the time of a step at each context if it is right."""
        once, again = self.logits(self.decoder(plan)), self.logits(self.decoder(plan))
        row: dict[str, Any] = {"plan": name, "dtype": self.dtype, "same_bits": torch.equal(once, again)}
        row["error"] = float((once - self.expected).abs().max())
        if row["same_bits"] and row["error"] <= BOUND[self.dtype]:
            for context in CONTEXTS:
                seconds = self.step_seconds(self.decoder(plan), context)
                row[f"tok/s at {context}"] = 1 / seconds
                row[f"share at {context}"] = self.model.weights.nbytes / seconds / self.limit
        return row

    def step_seconds(self, decoder: Decoder, context: int) -> float:
        """Median of five: one step, of `STEPS` replayed from `context` on."""
        prompt = (self.prompt * (context // len(self.prompt) + 1))[: context - 8]
        with decoder.begin(self.model, prompt, context + 6 * STEPS + 16, None) as decoding, torch.inference_mode():
            decoding.feed(7)
            decoding.greedy(8)
            turns = [_timed(self.device, lambda: [decoding.step() for _ in range(STEPS)]) for _ in range(5)]
        return sorted(turns)[2] / STEPS

    def profile(self, plan: Plan) -> list[dict[str, Any]]:
        """Time by kernel in one step, the mean of ten, beside the bytes that it must move (`decode_profile.py`)."""
        events, position = self.kernels(plan)
        return rows_of(events, PROFILED, moved_by(self.model, position), self.limit)

    def kernels(self, plan: Plan) -> tuple[list[tuple[str, float]], int]:
        """Names and microseconds of all kernels of `PROFILED` steps in their order, and the position after them."""
        with self.decoder(plan).begin(self.model, self.prompt, 400, None) as decoding, torch.inference_mode():
            decoding.feed(7)
            decoding.greedy(8)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
                decoding.greedy(PROFILED)
            position = decoding.position
        events = [event for event in found.events() if "CUDA" in str(event.device_type)]
        events.sort(key=lambda event: event.time_range.start)
        return [(event.name, event.time_range.elapsed_us()) for event in events], position


def _timed(device: Device, work: Callable[[], object]) -> float:
    device.synchronize()
    began = time.perf_counter()
    work()
    device.synchronize()
    return time.perf_counter() - began


def read_rate(device: Device) -> float:
    """Bytes a second of summing a large tensor of random numbers, the median of nine."""
    data = torch.rand(READ_BYTES // 4, device=device.torch)
    return READ_BYTES / sorted([_timed(device, data.sum) for _ in range(10)][1:])[4]


def main() -> None:
    """Print rows as they come, the profile last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dtypes", nargs="*", default=["F32", "BF16"])
    parser.add_argument("--json", type=Path, default=Path("decode_gpu.jsonl"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of a dtype")
    chosen = parser.parse_args()
    with Device(0) as device, chosen.json.open("w", encoding="utf-8") as file:

        def say(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(json.dumps(row), flush=True)

        limit = read_rate(device)
        device.trim()
        say({"device": device.name, "read_bytes_a_second": limit})
        for dtype in chosen.dtypes:
            until = time.monotonic() + chosen.seconds
            bench = Bench(device, dtype, limit)
            base = plan_of(bench.model.weights.dtype.itemsize, overlap=True)
            for name, plan in plans(base):
                if time.monotonic() < until:
                    say(bench.row(name, plan))
            say({"profile": dtype, "kernels": bench.profile(base)})
            bench.model.unload()


if __name__ == "__main__":
    main()
