"""A driver whose logits are never what it says of them; its argument names the lie."""

import hashlib
import os
import struct
import sys
from pathlib import Path

from conformance.protocol import messages as m
from conformance.protocol.host import serve

LIE = sys.argv[1]
TRUTH = struct.pack("<6f", *range(6))


class Adapter:
    def initialize(self, params):
        self.run_dir = Path(params.run_dir)
        return m.EngineInfo("lying", "1", [m.Capability.MODEL])

    def describe_error(self, _):
        return None

    def model_logits(self, _):
        path = self.run_dir / "logits"
        path.write_bytes(TRUTH)
        honest = {"path": str(path), "dtype": "F32", "shape": [2, 3], "nbytes": 24}
        honest["sha256"] = hashlib.sha256(TRUTH).hexdigest()
        return m.TensorData(**(honest | getattr(self, LIE)(path)))

    def nothing(self, _):
        return {}

    def relative_path(self, _):
        return {"path": "logits"}

    def not_a_number(self, path):
        payload = struct.pack("<6f", 0, 1, 2, 3, 4, float("nan"))
        path.write_bytes(payload)
        return {"sha256": hashlib.sha256(payload).hexdigest()}

    def hash_of_something_else(self, _):
        return {"sha256": hashlib.sha256(b"").hexdigest()}

    def changed_after_hashing(self, path):
        path.write_bytes(TRUTH[:-1] + b"x")
        return {}

    def cut_short(self, path):
        os.truncate(path, 23)
        return {}

    def longer_than_stated(self, path):
        path.write_bytes(TRUTH + b"x")
        return {}

    def negative_length(self, _):
        return {"nbytes": -1}

    def immense_length(self, _):
        return {"nbytes": 2**62}

    def missing(self, path):
        path.unlink()
        return {}

    def elsewhere(self, _):
        return {"path": "/etc/hostname"}

    def climbing(self, path):
        (path.parent.parent / "outside").write_bytes(TRUTH)
        return {"path": "../outside"}

    def link(self, path):
        path.unlink()
        path.symlink_to("/etc/hostname")
        return {}

    def link_within(self, path):
        path.rename(path.with_name("other"))
        path.symlink_to("other")
        return {}

    def link_to_itself(self, path):
        path.unlink()
        path.symlink_to(path)
        return {}

    def pipe(self, path):
        path.unlink()
        os.mkfifo(path)
        return {}

    def directory(self, path):
        return {"path": str(path.parent)}

    def nul_in_path(self, _):
        return {"path": "lo\0gits"}

    def endless_path(self, _):
        return {"path": "a/" * 5000}

    def unencodable_path(self, _):
        return {"path": "\x01\n\u202e"}

    def other_shape(self, _):
        return {"shape": [3, 3]}

    def negative_shape(self, _):
        return {"shape": [-2, -3]}

    def other_dtype(self, _):
        return {"dtype": "F64"}

    def unknown_dtype(self, _):
        return {"dtype": "object"}


if __name__ == "__main__":
    serve(Adapter)
