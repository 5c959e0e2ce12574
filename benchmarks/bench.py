"""One table of limits, ours, peers and ratios: `nox -s bench`, on a GPU if there is one, else on the CPU.

    python benchmarks/bench.py [--json PATH] [--parts limits,load,…] [--dtypes F32,BF16] [--seconds 60]

Every part is a process of its own with a time limit; one that fails leaves a row that says why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from page import table
from rows import Row, missing, ratios, write_rows

HERE = Path(__file__).parent
GPU_PARTS = ("decode", "load", "vram", "start", "peer_load", "peer_eager", "peer_compiled", "peer_llama_cpp")
CPU_MODELS = ("fixture", "smollm2")


def part(name: str, dtype: str, seconds: float, limits: Sequence[Row] = ()) -> list[Row]:
    """Rows of one part, run in a process of its own."""
    command = [sys.executable, str(HERE / "parts.py"), name, dtype, msgspec.json.encode(list(limits)).decode()]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
        rows = msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Row]) if done.returncode == 0 else None
        why = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
    except subprocess.TimeoutExpired:
        rows, why = None, [f"it took more than {seconds:.0f} s"]
    except (IndexError, msgspec.MsgspecError) as error:
        rows, why = None, [f"it did not print its rows: {error}"]
    print(f"{name} {dtype}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return [missing(name, "benchmark", dtype, why[0])] if rows is None else rows


def on_gpu(parts: Sequence[str], dtypes: Sequence[str], seconds: float, path: Path | None) -> list[Row]:
    """Limits first, then each part in each dtype; what there is is written after each."""
    rows = limits = part("limits", "", seconds)
    for wanted in parts:
        name, _, only = wanted.partition(":")
        for dtype in [only] if only else dtypes:
            rows = [*rows, *part(name, dtype, seconds, limits)]
            if path is not None:
                write_rows(path, [*rows, *ratios(rows)])
    return rows


def main() -> None:
    """Print the table; write the rows if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", default=",".join(GPU_PARTS), help="on a GPU; part:dtype for one dtype")
    parser.add_argument("--dtypes", default="F32,BF16", help="on a GPU")
    parser.add_argument("--models", default=",".join(CPU_MODELS), help="on the CPU")
    parser.add_argument("--seconds", type=float, default=75, help="time limit of a part")
    parser.add_argument("--cpu", action="store_true", help="the CPU, even if there is a GPU")
    chosen = parser.parse_args()
    if chosen.cpu or not any(Path("/dev").glob("nvidia[0-9]*")):
        rows = [row for model in chosen.models.split(",") for row in part("cpu", model, chosen.seconds * 8)]
    else:
        rows = on_gpu(chosen.parts.split(","), chosen.dtypes.split(","), chosen.seconds, chosen.json)
        rows = [*rows, *ratios(rows)]
    print(table(rows), end="")
    if chosen.json is not None:
        write_rows(chosen.json, rows)
    if all(row.value is None for row in rows):
        raise SystemExit("nothing could be measured")


if __name__ == "__main__":
    main()
