"""How the harness grows: a matrix with one and two workers, on two simulated devices; its own cost; 10,000 records.

`python benchmarks/scale.py --json docs/results/scale.json` runs all parts, `--part cost` one of them; each is a process
of its own and its result is written when it ends, with a page beside it. What is called processor time hardly depends
on what else runs.
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

from scale_page import page
from scale_parts import PARTS

from conformance.environment import fingerprint

ALL = tuple(PARTS)


def main() -> int:
    """Run the parts, or one of them for the process that asked."""
    options = _options()
    if options.here:
        print(json.dumps(PARTS[options.part[0]](options.here)))
        return 0
    result: dict[str, Any] = json.loads(options.json.read_text()) if options.json.is_file() else {}
    failed = 0
    for part in options.part or ALL:
        told = _run(part)
        failed += told is None
        result[part] = told or {"verdict": "not shown: the part failed"}
        result[part]["machine"] = _machine()
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        options.json.with_suffix(".md").write_text(page(result), encoding="utf-8")
    return 1 if failed else 0


def _run(part: str) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory(prefix="falsify-scale-") as directory:
        command = [sys.executable, __file__, "--part", part, "--here", directory]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=3600)
    told: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return told


def _machine() -> dict[str, Any]:
    found = fingerprint([])
    return {"cpu": found["cpu"], "python": found["python"], "load_average": list(os.getloadavg()), "nice": _niceness()}


def _niceness() -> int:
    """This process's, with that of its session where sessions are scheduled as groups; below 0 it comes first."""
    try:
        group = Path("/proc/self/autogroup").read_text(encoding="ascii")
    except OSError:
        return os.nice(0)
    return os.nice(0) + int(group.split()[-1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("scale.json"), help="Where the result goes, part by part.")
    parser.add_argument("--part", choices=ALL, action="append", help="Only this; may be repeated.")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
