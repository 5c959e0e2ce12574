"""A well-behaved driver without an engine: offers `file` over real files and forgets nothing."""

from pathlib import Path

from conformance.protocol import messages as m
from conformance.protocol.host import serve


class Vanished(Exception):
    """An error that the adapter does not describe."""


class Adapter:
    def __init__(self):
        self.files = {}

    def initialize(self, params):
        self.run_dir = Path(params.run_dir)
        return m.EngineInfo("good", "1.0", [m.Capability.FILE], language="python")

    def describe_error(self, error):
        if isinstance(error, FileNotFoundError):
            return m.ErrorData(m.ErrorKind.FILE_NOT_FOUND, "FileNotFoundError", {"path": error.filename})
        if isinstance(error, KeyError):
            return m.ErrorData(m.ErrorKind.CLOSED_HANDLE, "KeyError")
        return None

    def file_open(self, params):
        if params.path == "vanish":
            raise Vanished("lost\nfor ever")
        file = Path(params.path).open("rb")  # noqa: SIM115 - closed by file.close
        self.files[file.fileno()] = file
        return m.Handle(file.fileno())

    def file_close(self, params):
        self.files.pop(params.handle).close()

    def file_inspect(self, params):
        print("a print that must not reach the protocol")  # noqa: T201
        self.files[params.handle]
        return m.FileContents([])


if __name__ == "__main__":
    serve(Adapter)
