"""Decode kernels on a GPU: each plan checked against torch, then timed inside CUDA graphs; a table and JSON.

    python benchmarks/decode_gpu.py [--json FILE] [--seconds 200] [F32] [BF16]

A plan whose logits leave torch's by more than the bound, or that is not bit-equal twice, is reported and not timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from conformance.corpus.geometry import geometry_checkpoint
from reference_engine.decode import Decoder
from reference_engine.device import Device
from reference_engine.kernels.plan import Plan, Split, Tile, plan_of
from reference_engine.kernels.step import FusedStep
from reference_engine.model import SafeTensorsCudaModel

READ_BYTES = 4 << 30
BOUND = {"F32": 5e-4, "BF16": 0.5}
STEPS = 96
LONG = 4096


def read_rate(device: Device) -> float:
    """Bytes a second of summing a large tensor of random numbers, the median of nine."""
    data = torch.rand(READ_BYTES // 4, device=device.torch)
    return READ_BYTES / _median([_timed(device, data.sum) for _ in range(10)][1:])


def plans(base: Plan) -> Iterator[tuple[str, Plan]]:
    """The base, then one change at a time."""
    yield "base", base
    yield "no overlap", dataclasses.replace(base, overlap=False)
    none = {name: dataclasses.replace(getattr(base, name), lines=0) for name in TILES}
    yield "overlap without prefetch", dataclasses.replace(base, **none)
    for name in TILES:
        tile = getattr(base, name)
        for change in _tiles(tile):
            yield f"{name} {change}", dataclasses.replace(base, **{name: change})
    for positions, splits, least, warps in (
        (16, 16, 2, 8), (16, 64, 2, 8), (16, 32, 1, 8), (16, 32, 4, 8), (16, 32, 2, 4), (32, 32, 1, 8), (8, 32, 4, 8),
    ):  # fmt: skip
        split = Split(positions, splits, least, warps)
        yield f"attention {split}", dataclasses.replace(base, attention=split)


TILES = ("gate_up", "down", "qkv", "out", "head")


def _tiles(tile: Tile) -> Iterator[Tile]:
    for rows in (1, 2, 4, 8, 16):
        if rows != tile.rows:
            yield dataclasses.replace(tile, rows=rows)
    for columns, unroll in ((128, 4), (256, 6), (1024, 1), (512, 1), (512, 3)):
        if (columns, unroll) != (tile.columns, tile.unroll):
            yield dataclasses.replace(tile, columns=columns, unroll=unroll)
    for warps in (2, 8):
        yield dataclasses.replace(tile, warps=warps)
    yield dataclasses.replace(tile, lines=min(64, 4 * tile.lines))


class Bench:
    """One model, torch's logits of a few steps, and the time of a step by plan."""

    def __init__(self, device: Device, dtype: str) -> None:
        self.device, self.dtype = device, dtype
        self.model = SafeTensorsCudaModel.from_safetensors(geometry_checkpoint(dtype), device)
        self.prompt = [(37 * i * i + 11) % 150_000 for i in range(250)]
        self.expected = self.logits(Decoder(graphs=True), self.prompt)

    def decoder(self, plan: Plan) -> Decoder:
        """A decoder by this plan."""
        step = FusedStep(self.model.config, plan)
        return Decoder(graphs=True, step=step, advance=step.advance)

    def logits(self, decoder: Decoder, prompt: list[int]) -> torch.Tensor:
        """Logits of eight steps of a fixed text, across a bucket's end; positions are left as found."""
        with decoder.begin(self.model, prompt, len(prompt) + 200, None) as decoding, torch.inference_mode():
            rows = []
            for token in range(8):
                decoding.feed(1000 + token)
                rows.append(decoding.step().clone())
            return torch.stack(rows)

    def error(self, plan: Plan) -> float:
        """Largest difference to torch's logits; infinite if two runs differ in a bit."""
        decoder = self.decoder(plan)
        once, again = self.logits(decoder, self.prompt), self.logits(decoder, self.prompt)
        return float((once - self.expected).abs().max()) if torch.equal(once, again) else float("inf")

    def step_seconds(self, decoder: Decoder, context: int) -> float:
        """Median of five: one step, of `STEPS` replayed from `context` on."""
        prompt = (self.prompt * (context // len(self.prompt) + 1))[: context - 8]
        with decoder.begin(self.model, prompt, context + 6 * STEPS + 16, None) as decoding, torch.inference_mode():
            decoding.feed(7)
            decoding.greedy(8)
            turns = [_timed(self.device, lambda: [decoding.step() for _ in range(STEPS)]) for _ in range(5)]
        return _median(turns) / STEPS

    def row(self, engine: str, decoder: Decoder, context: int, limit: float) -> dict[str, Any]:
        """One measurement as a row of the benchmark's table."""
        seconds = self.step_seconds(decoder, context)
        weights = self.model.weights
        untied = weights.embedding is not weights.lm_head
        nbytes = weights.nbytes - (weights.embedding.nbytes if untied else 0)
        return {
            "name": f"decode at {context}", "engine": engine, "dtype": self.dtype,
            "value": 1 / seconds, "unit": "tok/s",
            "limit": limit / nbytes, "share_of_limit": nbytes / seconds / limit, "interval": None,
        }  # fmt: skip

    def profile(self, plan: Plan) -> list[dict[str, Any]]:
        """Microseconds of each kernel in one step, from ten."""
        with self.decoder(plan).begin(self.model, self.prompt, 400, None) as decoding, torch.inference_mode():
            decoding.feed(7)
            decoding.greedy(8)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
                decoding.greedy(10)
        events = [event for event in found.key_averages() if event.device_time_total]
        return [
            {"kernel": event.key, "count": event.count / 10, "us_a_step": event.device_time_total / 10}
            for event in sorted(events, key=lambda event: -event.device_time_total)
        ]


def _timed(device: Device, work: Any) -> float:
    device.synchronize()
    began = time.perf_counter()
    work()
    device.synchronize()
    return time.perf_counter() - began


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def sweep(bench: Bench, limit: float, until: float) -> Iterator[dict[str, Any]]:
    """Torch's step, the base plan at both contexts, then every other plan while there is time."""
    yield bench.row("torch", Decoder(graphs=True), 256, limit)
    for name, plan in plans(plan_of(bench.model.weights.dtype.itemsize, overlap=True)):
        if time.monotonic() > until:
            return
        began = time.monotonic()
        try:
            error = bench.error(plan)
            row = {"engine": f"kernels: {name}", "dtype": bench.dtype, "error": error}
            if error <= BOUND[bench.dtype]:
                row |= bench.row(f"kernels: {name}", bench.decoder(plan), 256, limit)
                if name == "base" or name.startswith(("attention", "no overlap")):
                    row["at_4096"] = bench.row(name, bench.decoder(plan), LONG, limit)["value"]
        except Exception as failure:  # noqa: BLE001 - the next plan may work
            row = {"engine": f"kernels: {name}", "dtype": bench.dtype, "failed": repr(failure)[:300]}
        yield row | {"took": round(time.monotonic() - began, 2)}


def main() -> None:
    """Print rows as they come; write all as JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dtypes", nargs="*", default=["F32", "BF16"])
    parser.add_argument("--json", type=Path, default=Path("decode_gpu.json"))
    parser.add_argument("--seconds", type=float, default=200.0)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with Device(0) as device:
        limit = read_rate(device)
        device.trim()
        print(f"{device.name}: reads {limit / 1e9:.0f} GB/s", flush=True)
        for dtype in chosen.dtypes:
            bench = Bench(device, dtype)
            for row in sweep(bench, limit, time.monotonic() + chosen.seconds / len(chosen.dtypes)):
                rows.append(row)
                print(" ".join(f"{key}={_short(value)}" for key, value in row.items()), flush=True)
                chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
            profile = bench.profile(plan_of(bench.model.weights.dtype.itemsize, overlap=False))
            rows.append({"name": "profile", "dtype": dtype, "kernels": profile})
            for line in profile[:12]:
                print(line)
            chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
            bench.model.unload()


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
