"""The scheduling of a matrix on devices that do not exist: all of the harness is real, NVML and the engine are not.

A library in the place of libnvidia-ml.so.1 lists the devices, an engine sleeps over every call. What is shown is when
and where rows ran: what they say of an engine means nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matrix_runs import Run, described, differing, run_matrix, write_table
from two_gpus import BESIDE_TIMED, TARGET, TIMED, verdict_of

from conformance.probes.nvml import VISIBLE

SIMULATED = Path(__file__).resolve().parent / "simulated"
LEAK = ("F-CUDA-020", "F-MEM-031")
ON_CPU = ("F-ERR-091", "F-ERR-094")
MODELS = ["fixture", "random"]
ENGINES = ("sleeper", "dozer")


def devices(directory: Path, seconds: float = 1.5, names: Sequence[str] = ENGINES) -> dict[str, Any]:
    """Engines with two models: untimed rows, leak rows among them, on two devices, with timed ones, and on one."""
    library = build(directory)
    engines = [str(_manifest(directory / f"{name}.toml", seconds)) for name in names]
    untimed = [*BESIDE_TIMED, *LEAK]
    asked = {"two": (untimed, 2), "timed": ([*TIMED, *ON_CPU, *untimed], 2), "one": (untimed, 1)}
    runs: dict[str, Run] = {}
    for name, (rows, count) in asked.items():
        table = {"engines": engines, "models": MODELS, "rows": rows}
        file = write_table(directory / f"{name}.toml", table)
        env = _environment(library, directory / name, count)
        runs[name] = run_matrix(file, directory / name / "out", "-n", "2", env=env, timeout=900)
    parts = {name: described(run) for name, run in runs.items()}
    result: dict[str, Any] = {
        "gpus": ["simulated"] * 2,
        "seconds_a_call": seconds,
        "target": TARGET,
        "rows": {"untimed": list(BESIDE_TIMED), "leak": list(LEAK), "timed": list(TIMED), "cpu": list(ON_CPU)},
        "parts": parts,
        "differing": differing([runs["one"], runs["two"]]),
        "share": round(parts["two"]["untimed_rows_s"] / parts["one"]["untimed_rows_s"], 3),
        "load_average": os.getloadavg(),
    }
    return result | {"verdict": verdict_of(result)}


def build(directory: Path) -> Path:
    """The directory of a library that stands where NVML would.

    Raises:
        subprocess.CalledProcessError, FileNotFoundError: there is no C compiler, or it failed.
    """
    target = directory / "lib"
    target.mkdir()
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(target / "libnvidia-ml.so.1"), str(SIMULATED / "nvml.c")]
    subprocess.run(command, check=True, timeout=60)
    return target


def _environment(library: Path, place: Path, count: int) -> dict[str, str]:
    """Locks of its own: trials of real devices on this host neither wait for these nor keep them waiting."""
    locks = place / "tmp"
    locks.mkdir(parents=True)
    libraries = os.pathsep.join(filter(None, (str(library), os.environ.get("LD_LIBRARY_PATH", ""))))
    visible = ",".join(map(str, range(count)))
    return {"LD_LIBRARY_PATH": libraries, "SIMULATED_DEVICES": str(count), VISIBLE: visible, "TMPDIR": str(locks)}


def _manifest(path: Path, seconds: float) -> Path:
    command = json.dumps(["{python}", str(SIMULATED / "sleeper.py"), str(seconds)])
    path.write_text(f'[engine]\nname = "{path.stem}"\n[driver]\ncommand = {command}\n', encoding="utf-8")
    return path
