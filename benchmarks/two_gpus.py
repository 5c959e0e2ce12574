"""The reference engine's matrix on one GPU and on two of one host: time, verdicts, and who shared a device.

`python benchmarks/two_gpus.py --f32 CHECKPOINT --json two-gpus.json`. The fixture's weights are BF16; CHECKPOINT is its
copy in F32 with goldens. Where there is no GPU, `--rows F-QUAL-068 --places` shows the scheduling on pretended ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from matrix_runs import Run, described, differing, run_matrix, write_table

from conformance.catalogue import load_catalogue
from conformance.environment import fingerprint
from conformance.probes.nvml import VISIBLE, gpus

LONG = ("F-MEM-022", "F-MEM-032", "F-LOAD-056", "F-INT-096", "F-INT-097")
"""Left out to keep the whole within minutes: together they take as long as the other 59."""
TIMED = ("F-MEM-033", "F-ERR-092")
BESIDE_TIMED = ("F-QUAL-068", "F-QUAL-071", "F-QUAL-074", "F-DTYPE-047", "F-DTYPE-048", "F-MEM-021", "F-MEM-023")
TARGET = 0.6


def untimed_gpu_rows() -> list[str]:
    """The rows that need the GPU and need not be alone, without the longest."""
    rows = [row for row in load_catalogue().rows if row.section not in {"build", "parse", "err"} and not row.alone]
    return [row.id for row in rows if row.id not in LONG]


def verdict_of(result: dict[str, Any]) -> str:
    """What the numbers say of the target; nothing where a part is missing."""
    parts = result["parts"]
    if not {"one", "two", "timed"} <= parts.keys():
        return "not shown: a part is missing"
    shared = (line for part in parts.values() for line in (*part["disturbed"], *part["tenants"]))
    wrong = [*result["differing"], *shared]
    used = {device for cell in parts["two"]["cells"] for device in cell["devices"]}
    if result["gpus"] and len(used) < 2:  # noqa: PLR2004  two GPUs
        return "not shown: only one device was used"
    if wrong:
        return f"missed: {wrong[0]}"
    kept = result["share"] <= TARGET
    return f"{'kept' if kept else 'missed'}: {result['share']:.2f} of the time, target {TARGET}"


def main() -> int:
    """Run the three matrices; the result is written after each."""
    options = _options()
    devices = gpus()
    result: dict[str, Any] = {"gpus": fingerprint(devices)["gpus"], "target": TARGET, "parts": {}, "differing": []}
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory(prefix="falsify-two-gpus-", ignore_cleanup_errors=True) as directory:
        base = options.keep or Path(directory)
        base.mkdir(parents=True, exist_ok=True)
        for name, rows, env, limit in _parts(options, [device.uuid for device in devices]):
            file = write_table(base / f"{name}.toml", _table(options.f32, rows))
            places = ["--places", "1" if name == "one" else "2"]
            try:
                runs[name] = run_matrix(file, base / name, "-n", "2", *places, env=env, timeout=limit)
            except (subprocess.TimeoutExpired, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            result["parts"][name] = described(runs[name])
            if {"one", "two"} <= runs.keys():
                result["differing"] = differing([runs["one"], runs["two"]])
                result["share"] = round(runs["two"].wall_s / runs["one"].wall_s, 3)
            result["verdict"] = verdict_of(result)
            options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(result.get("verdict", "not shown: nothing ran"))
    return 0 if result.get("verdict", "").startswith("kept") else 1


def _parts(options: argparse.Namespace, uuids: list[str]) -> list[tuple[str, list[str], dict[str, str], float]]:
    """Both GPUs come first, with cold caches, so that the order does not flatter them."""
    rows = options.rows or untimed_gpu_rows()
    one = {VISIBLE: uuids[0]} if uuids else {}
    both = {VISIBLE: ",".join(uuids[:2])} if uuids else {}
    timed = [*TIMED, *(options.rows or BESIDE_TIMED)]
    return [("two", rows, both, 170.0), ("timed", timed, both, 80.0), ("one", rows, one, 300.0)]


def _table(f32: Path, rows: list[str]) -> dict[str, Any]:
    return {"engines": ["reference"], "models": ["fixture", os.fspath(f32.resolve())], "rows": rows}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--f32", type=Path, required=True, help="The fixture in F32, with goldens.")
    parser.add_argument("--json", type=Path, required=True, help="Where the result goes.")
    parser.add_argument("--keep", type=Path, help="Keep the matrices with their records here.")
    parser.add_argument("--rows", nargs="+", help="Instead of the untimed GPU rows.")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
