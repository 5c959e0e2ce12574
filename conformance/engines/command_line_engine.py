"""The driver of an engine that has nothing but a command line: it says who that is and answers nothing else.

`python -m conformance.engines.command_line_engine MANIFEST [ARGUMENT…]`: the program of the manifest's `[cli]` table is
asked for its version with the arguments.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from conformance.manifest import BrokenManifest, LoadedManifest, load_manifest
from conformance.protocol.host import serve
from conformance.protocol.messages import Capability, EngineInfo, ErrorData, Initialize

_VERSION_S = 20.0


class CommandLineEngine:
    """The adapter; the rows of the command line run the program themselves."""

    def __init__(self, manifest: LoadedManifest, version_arguments: list[str]) -> None:
        self._manifest, self._arguments = manifest, version_arguments

    def initialize(self, _params: Initialize) -> EngineInfo:
        """Name, language and precision as the manifest says, the version as the program says."""
        named = self._manifest.manifest.engine
        return EngineInfo(
            named.name, self._version() or named.version, [Capability.CLI], named.precision, named.language
        )

    def _version(self) -> str:
        """The first line of what the program says of itself; empty where it says nothing or is not there."""
        table = self._manifest.manifest.cli
        if table is None:
            raise BrokenManifest(self._manifest.path, "no [cli] table: no program to ask")
        if not self._arguments:
            return ""
        command = [*self._manifest.filled(table.command), *self._arguments]
        try:
            told = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_VERSION_S, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return next((line.strip() for line in told.splitlines() if line.strip()), "")

    def describe_error(self, _error: Exception) -> ErrorData | None:
        """It raises nothing of its own."""
        return None


if __name__ == "__main__":
    serve(partial(CommandLineEngine, load_manifest(sys.argv[1]), sys.argv[2:]))
