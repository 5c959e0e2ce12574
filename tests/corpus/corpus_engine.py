"""Parsers behind the protocol: in this process for speed, and as a driver of its own for crashes and hangs."""

import hashlib
import os
import sys
import time
from pathlib import Path

import msgspec

from conformance.protocol import messages as m
from conformance.protocol.failures import EngineRefused, ProtocolViolated
from conformance.protocol.host import serve

sys.path.insert(0, str(Path(__file__).parent))
from corpus_parsers import PARSERS, Bad, Strict


class Refused(Exception):
    def __init__(self, kind, text):
        self.kind = m.ErrorKind(kind)
        super().__init__(text)


class Adapter:
    """The `file` capability over a parser."""

    def __init__(self, parser):
        self.parser = parser
        self.files = {}

    def initialize(self, params):
        self.run_dir = Path(params.run_dir)
        return m.EngineInfo(type(self.parser).__name__, "1", [m.Capability.FILE], language="python")

    def describe_error(self, error):
        if isinstance(error, Refused):
            return m.ErrorData(error.kind, "Refused")
        return None

    def refuse(self, path, cause):
        raise Refused(self.parser.kind, self.parser.message.format(path=path, cause=cause))

    def file_open(self, params):
        try:
            opened = self.parser.open(Path(params.path).read_bytes())
        except Bad as bad:
            self.refuse(params.path, bad)
        self.files[1] = (params.path, *opened)
        return m.Handle(1)

    def file_inspect(self, params):
        _, tensors, metadata, _ = self.files[params.handle]
        entries = [m.TensorEntry(name, d, list(s), b, e) for name, (d, s, b, e) in tensors.items()]
        return m.FileContents(entries, metadata)

    def file_read(self, params):
        path, tensors, _, buffer = self.files[params.handle]
        dtype, shape, *_ = entry = tensors[params.tensor]
        try:
            payload = bytes(self.parser.read(buffer, entry))
        except Bad as bad:
            self.refuse(path, bad)
        (self.run_dir / "tensor.bin").write_bytes(payload)
        return m.TensorData("tensor.bin", dtype, list(shape), len(payload), hashlib.sha256(payload).hexdigest())

    def file_close(self, params):
        del self.files[params.handle]


class InProcess:
    """An engine's session without a process."""

    def __init__(self, parser, run_dir):
        self.adapter = Adapter(parser)
        self.adapter.initialize(m.Initialize(str(run_dir)))
        self.pid = os.getpid()

    def call(self, method, params=None, **_):
        if method == "ping":
            return params
        try:
            result = getattr(self.adapter, method.replace(".", "_"))(params) or m.Empty()
            return msgspec.json.decode(msgspec.json.encode(result), type=m.METHODS[method].result)
        except (msgspec.ValidationError, TypeError, UnicodeEncodeError) as error:
            raise ProtocolViolated(method, detail=str(error), stderr_tail="") from error
        except Refused as refused:
            raise EngineRefused(method, kind=refused.kind, message=str(refused), code=-32000) from refused
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise EngineRefused(method, kind=m.ErrorKind.INTERNAL, message=message, code=-32603) from error


class Aborting(Strict):
    """Aborts where a tensor ends before it begins."""

    def number(self, value):
        if isinstance(value, int) and value < 0:
            os.abort()
        return super().number(value)


class Hanging(Strict):
    """Never comes back from NUL padding."""

    def text(self, header):
        if b"\0" in header:
            time.sleep(3600)
        return super().text(header)


class Allocating(Strict):
    """Reserves and touches what the header's length says, up to 300 MiB, before it looks."""

    def length(self, prefix):
        length = super().length(prefix)
        self.reserved = b"x" * min(length, 300 * 2**20)
        return length


class Slow(Strict):
    """Takes two seconds to refuse."""

    def constant(self, word):
        time.sleep(2)
        return super().constant(word)


class Leisurely(Strict):
    """Takes a second over every file."""

    def text(self, header):
        time.sleep(1)
        return super().text(header)


if __name__ == "__main__":
    extra = {parser.__name__: parser for parser in (Aborting, Hanging, Allocating, Slow, Leisurely)}
    serve(lambda: Adapter((PARSERS | extra)[sys.argv[1]]()))
