"""The reference engine with one fault planted: `python -m conformance.faults NAME [--module PATH] [cli ARGUMENTS…]`.

Without `cli` it is a driver; with it, the command line. The fault is planted before the first call that does work,
so that a driver that is only asked who it is starts without torch.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.faults.planting import WITNESS, Fault, Plant, find_fault

if TYPE_CHECKING:
    from conformance.protocol.messages import EngineInfo, ErrorData, Initialize


class PlantedEngine:
    """The reference engine's adapter; planting waits for the first call that does work, unless it is to be early."""

    def __init__(self, planted: Fault) -> None:
        from conformance.engines.reference import ReferenceEngine

        self._engine = ReferenceEngine()
        self._fault: Fault | None = planted
        if planted.early:
            self._plant()

    def initialize(self, params: Initialize) -> EngineInfo:
        """Who this is: the reference engine."""
        return self._engine.initialize(params)

    def describe_error(self, error: Exception) -> ErrorData | None:
        """What the reference engine says of its error."""
        return self._engine.describe_error(error)

    def __getattr__(self, name: str) -> Any:
        if self._fault is not None:
            self._plant()
        return getattr(self._engine, name)

    def _plant(self) -> None:
        planted, self._fault = self._fault, None
        assert planted is not None
        plant(planted)


def plant(planted: Fault) -> None:
    """Plant a fault into this process; one that cannot be planted says so to the trial."""
    assert planted.plant is not None
    try:
        planted.plant(Plant(planted.name))
    except Exception:
        if path := os.environ.get(WITNESS):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write("broken: " + " | ".join(traceback.format_exc().splitlines()[-3:]) + "\n")
        raise


def main(arguments: list[str]) -> None:
    """Serve, or run the command line."""
    name, *rest = arguments
    module = None
    if rest[:1] == ["--module"]:
        module, rest = Path(rest[1]), rest[2:]
    planted = find_fault(name, module)
    if rest[:1] == ["cli"]:
        from reference_engine import cli

        plant(planted)
        sys.argv = ["apr", *rest[1:]]
        cli.main()
        return
    from conformance.protocol.host import serve

    serve(lambda: PlantedEngine(planted))


if __name__ == "__main__":
    main(sys.argv[1:])
