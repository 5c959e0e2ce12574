"""The plan of a trial: everything fixed before the first row runs, as one file that all workers read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from conformance.record import ModelIdentity

PLAN_FILE = "plan.json"
DEFAULT_PEER = "llama_cpp"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried, on which engine and weights, with which seed; paths are absolute."""

    run_dir: str
    engine: str
    model: ModelIdentity
    model_dir: str
    goldens_dir: str | None
    rows: list[str]
    seed: int
    shuffle: bool
    gpu: bool
    is_reference: bool
    reproduce: str
    profile: Literal["default", "long"] = "default"
    peer: str = DEFAULT_PEER
    device_index: int = 0
    device: str = ""

    @property
    def directory(self) -> Path:
        """The run directory; nothing is written outside it."""
        return Path(self.run_dir)

    def row_seed(self, row_id: str) -> int:
        """The seed of one row, independent of which other rows run."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{row_id}".encode()).digest()[:4])

    def write(self) -> Path:
        """Write the plan into its run directory."""
        path = self.directory / PLAN_FILE
        path.write_bytes(msgspec.json.encode(self))
        return path


def read_plan(path: Path) -> Plan:
    """Read a plan that `Plan.write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)
