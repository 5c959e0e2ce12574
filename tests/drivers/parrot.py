"""An engine that infers nothing: it repeats the golden answers, and misbehaves in the one way its argument names.

`honest` survives; every other name is an attribute of `Adapter` that spoils one thing.
"""

import ctypes
import hashlib
import json
import os
import sys
import time
from pathlib import Path

from conformance.protocol import messages as m
from conformance.protocol.host import serve

WAY = sys.argv[1]
DEVICES = m.DeviceInfo(0, "parrot", 1 << 30)
CAPABILITIES = [m.Capability.DEVICE, m.Capability.MODEL, m.Capability.GENERATE]


class Refused(Exception):
    """The engine's only error."""


def spoil(*ways):
    return WAY in ways


class Adapter:
    def initialize(self, params):
        self.run_dir = Path(params.run_dir)
        if spoil("dies_on_load"):
            sys.exit("no licence found")
        offered = CAPABILITIES[:1] if spoil("offers_less") else CAPABILITIES
        return m.EngineInfo("parrot", "1", offered, language="python")

    def describe_error(self, error):
        return m.ErrorData(m.ErrorKind.INVALID_ARGUMENT, "Refused") if isinstance(error, Refused) else None

    def device_open(self, params):
        self.needs_context()
        return m.DeviceOpened(1, DEVICES)

    def device_synchronize(self, params):
        return None

    def device_close(self, params):
        return None

    def needs_context(self):
        if getattr(self, "context_lost", False):
            raise Refused("unspecified launch failure")

    if WAY != "claims_what_it_lacks":

        def model_load(self, params):
            if spoil("pleads_no_device"):
                raise Refused("no CUDA device")
            from conformance.corpus.goldens import load_goldens

            self.goldens = load_goldens(Path(params.path))
            self.cases = self.goldens.run.cases
            self.vocabulary = json.loads((Path(params.path) / "config.json").read_text())["vocab_size"]
            config = m.ModelConfig("Parrot", 1, 1, 1, 1, 1, 1, self.vocabulary, 2048, 1e6, 1e-6, True, [])
            return m.ModelLoaded(1, "parrot.Model", "parrot.Storage", False, config, 0)

    def model_unload(self, params):
        return None

    def generate(self, params):
        if not spoil("loses_context_at_last"):
            self.needs_context()
        if params.prompt == "" or params.prompt_ids == []:
            self.misbehave()
            raise Refused("an empty prompt")
        asked = [(list(c.messages or []), c.prompt if c.raw else None) for c in self.cases]
        case = next(
            (
                c
                for c, (turns, raw) in zip(self.cases, asked, strict=True)
                if (params.messages or None) == (turns or self.turns_of(c) or None) and params.prompt == raw
                if params.prompt_ids is None or list(params.prompt_ids) == list(c.prompt_ids)
            ),
            None,
        )
        ids = [] if case is None else [token + spoil("wrong_ids") for token in case.ids]
        stop = None if case is None else case.stop_id
        text = "" if case is None else case.text
        return m.Generation(ids, text, "stop", 0 if case is None else len(case.prompt_ids), False, stop)

    @staticmethod
    def turns_of(case):
        return [] if case.raw or case.prompt is None else [m.ChatMessage("user", case.prompt)]

    def misbehave(self):
        os.write(2, b"last words\n")
        self.context_lost = spoil("loses_context", "loses_context_at_last")
        if spoil("segfaults"):
            ctypes.string_at(0)
        if spoil("exits"):
            os._exit(7)
        if spoil("sleeps"):
            (Path(os.environ["ASLEEP"]) / str(os.getpid())).touch()
            time.sleep(600)
        if spoil("floods"):
            while True:
                os.write(self.protocol_descriptor(), b"garbage\n" * 8192)

    @staticmethod
    def protocol_descriptor():
        """The duplicate of standard output that the host keeps: a pipe above the standard descriptors."""
        own = os.readlink("/proc/self/fd/2")
        descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        for descriptor in descriptors[3:]:
            try:
                target = os.readlink(f"/proc/self/fd/{descriptor}")
                os.write(descriptor, b"")
            except OSError:
                continue
            if target.startswith("pipe:") and target != own:
                return descriptor
        raise AssertionError("no pipe to the harness")

    def model_logits(self, params):
        import numpy as np

        case = next(c for c in self.cases if [*c.prompt_ids, *c.ids] == list(params.ids))
        columns, values = self.goldens.logits(case)
        top_ids, top = self.goldens.top(case)
        logits = np.full((params.last, self.vocabulary), -1e4, dtype="<f4")
        logits[: len(values), columns] = values
        np.put_along_axis(logits[: len(top)], top_ids, top, axis=1)
        if spoil("nan_logits"):
            logits[0] = np.nan
        if spoil("few_logits"):
            logits = logits[:, :3]
        path = self.run_dir / "logits"
        path.write_bytes(logits.tobytes())
        digest = hashlib.sha256(logits.tobytes()).hexdigest()
        return m.TensorData(str(path), "F32", list(logits.shape), logits.nbytes, digest)


if __name__ == "__main__":
    serve(Adapter)
