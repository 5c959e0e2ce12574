"""Where a decoding step spends its time: by kernel, beside the bytes that each must read and the limit of memory.

    python benchmarks/decode_profile.py DIRECTORY [F32] [BF16]

Leaves `profile.json` and `profile.md`, written anew after each dtype. With dependent launch a kernel's time begins
while the one before it ends, so that the sum exceeds the step, which is timed without the profiler.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reference_engine.model import SafeTensorsCudaModel

KERNELS = {"embed", "project", "attend", "combine", "gate_up", "head", "choose"}
LAYER = ("qkv", "attend", "combine", "out", "gate_up", "down")
CONTEXT = 256
Events = Sequence[tuple[str, float]]


def rows_of(events: Events, steps: int, moved: Mapping[str, int], limit: float) -> list[dict[str, Any]]:
    """Time by kernel in one step, the mean of `steps`, the costliest first.

    Args:
        events: Name and microseconds of each kernel, in their order.
        steps: How many steps these are.
        moved: Bytes that a kernel must read in a step, by its part's name; `layers` is how many layers there are.
        limit: Bytes a second that the device reads.
    """
    fused = [(name, us) for name, us in events if name in KERNELS]
    # A plan that joins attention has no `combine`.
    layer = tuple(part for part in LAYER if part != "combine" or any(name == part for name, _ in fused))
    order = ("embed", *layer * moved["layers"], "head", "choose")
    # Kernels of one name do several parts; where the order is not the one that is known, names have to do.
    told = zip(order * steps, fused, strict=True) if len(fused) == steps * len(order) else ((e[0], e) for e in fused)
    others = ((name, (name, us)) for name, us in events if name not in KERNELS)
    times: dict[str, list[float]] = {}
    for part, (_, us) in [*told, *others]:
        times.setdefault(part, []).append(us)
    rows = []
    for part, found in sorted(times.items(), key=lambda each: -sum(each[1])):
        us, nbytes = sum(found) / steps, moved.get(part, 0)
        share = nbytes / us / 1e-6 / limit if nbytes else None
        rows.append(
            {"kernel": part, "count": len(found) / steps, "us": us, "bytes": nbytes, "share_of_read_rate": share}
        )
    return rows


def moved_by(model: SafeTensorsCudaModel, position: int) -> dict[str, int]:
    """Bytes that each part of a step must read at a position, over all layers; and how many layers there are."""
    config, weights = model.config, model.weights
    layers, first = len(weights.layers), weights.layers[0]
    pair = 2 * config.num_kv_heads * config.head_dim * weights.dtype.itemsize
    each = {
        "qkv": first.qkv.nbytes, "attend": pair * position, "out": first.attention_out.nbytes,
        "gate_up": first.gate_up.nbytes, "down": first.down.nbytes,
    }  # fmt: skip
    return {name: layers * nbytes for name, nbytes in each.items()} | {
        "head": weights.lm_head.nbytes, "layers": layers,
    }  # fmt: skip


def page(found: Mapping[str, Any]) -> str:
    """What was profiled as a Markdown table a dtype."""
    lines = [f"# A decoding step by kernel: {found['device']}", ""]
    lines += [f"Reading memory: {found['read_bytes_a_second'] / 1e12:.2f} TB/s in the same run.", ""]
    for dtype, one in found["dtypes"].items():
        rate = one["bytes"] / one["step_us"] / 1e-6 / found["read_bytes_a_second"]
        lines += [
            f"## {dtype}: {one['step_us']:.0f} us a step after {CONTEXT} tokens, {rate:.2f} of the read rate", "",
            "| kernel | a step | us | share of all kernels | MB to read | share of the read rate |",
            "| --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        total = sum(row["us"] for row in one["kernels"])
        for row in one["kernels"]:
            share = "" if row["share_of_read_rate"] is None else f"{row['share_of_read_rate']:.2f}"
            nbytes = f"{row['bytes'] / 1e6:.1f}" if row["bytes"] else ""
            name = row["kernel"].replace("|", "\\|")[:60]
            lines.append(
                f"| {name} | {row['count']:g} | {row['us']:.1f} | {row['us'] / total:.0%} | {nbytes} | {share} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Profile, write, print."""
    from decode_gpu import PROFILED, Bench, read_rate

    from reference_engine.device import Device
    from reference_engine.kernels.plan import plan_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("dtypes", nargs="*", default=["F32", "BF16"])
    chosen = parser.parse_args()
    chosen.directory.mkdir(parents=True, exist_ok=True)
    with Device(0) as device:
        limit = read_rate(device)
        device.trim()
        found: dict[str, Any] = {"device": device.name, "read_bytes_a_second": limit, "steps": PROFILED, "dtypes": {}}
        for dtype in chosen.dtypes:
            bench = Bench(device, dtype, limit)
            plan = plan_of(bench.model.weights.dtype.itemsize, overlap=True)
            seconds = bench.step_seconds(bench.decoder(plan), CONTEXT)
            events, position = bench.kernels(plan)
            moved = moved_by(bench.model, position)
            nbytes = sum(count for name, count in moved.items() if name != "layers")
            kernels = rows_of(events, PROFILED, moved, limit)
            found["dtypes"][dtype] = {"step_us": seconds * 1e6, "bytes": nbytes, "kernels": kernels}
            bench.model.unload()
            (chosen.directory / "profile.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            (chosen.directory / "profile.md").write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
