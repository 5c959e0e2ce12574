"""`falsify severity`: which faults are chosen, and what is left behind by their matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from conformance.faults.matrix import Matrix, run_matrix
from conformance.faults.planting import Fault, UnknownFault
from conformance.probes.nvml import gpus
from conformance.revision import revision
from conformance.trial.runner import new_run_directory
from reports.severity import severity_page


def chosen_faults(known: Mapping[str, Fault], names: Sequence[str], areas: Sequence[str], machine: str) -> list[Fault]:
    """The faults that are asked for, of those that this machine can show.

    Raises:
        UnknownFault: a name or area that matches none; running nothing must never look green.
    """
    for name in names:
        if name not in known:
            raise UnknownFault(name)
    for area in areas:
        if area not in {planted.area for planted in known.values()}:
            raise UnknownFault(area)
    shown = {machine} if machine else {"cpu", "gpu"} if gpus() else {"cpu"}
    chosen = [
        planted
        for planted in known.values()
        if (not names or planted.name in names) and (not areas or planted.area in areas) and planted.machine in shown
    ]
    if not chosen:
        raise UnknownFault(machine or ", ".join([*names, *areas]))
    return chosen


def run_and_write(
    faults: Sequence[Fault], out: Path, module: Path | None, *, full: bool, workers: int, say: Callable[[str], None]
) -> Matrix:
    """Run the matrix and leave `severity.json` and `severity.html` in `out`, the trials in a new directory there."""
    trials = new_run_directory(out)
    matrix = run_matrix(faults, trials, module=module, full=full, workers=workers, say=say, revision=revision().name)
    (out / "severity.json").write_bytes(msgspec.json.format(msgspec.json.encode(matrix), indent=1) + b"\n")
    (out / "severity.html").write_text(severity_page(matrix), encoding="utf-8")
    return matrix
