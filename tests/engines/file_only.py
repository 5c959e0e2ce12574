"""An engine that only reads SafeTensors files, with one thing broken; its argument names what (`Healthy`: nothing)."""

import sys
from pathlib import Path

import msgspec

from conformance.protocol import messages as m
from conformance.protocol.host import serve

sys.path.insert(0, str(Path(__file__).parent))  # the harness starts drivers with a safe path
import broken


def file_only(engine):
    """The same engine, offering no more than the file capability."""

    class FileOnly(engine):
        def initialize(self, params):
            info = super().initialize(params)
            return msgspec.structs.replace(info, capabilities=[m.Capability.FILE])

    return FileOnly


if __name__ == "__main__":
    serve(file_only(getattr(broken, sys.argv[1])))
