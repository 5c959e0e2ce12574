"""A whole driver: an engine that reads SafeTensors files, on numpy and the official library."""

from safetensors import SafetensorError, safe_open

from conformance.protocol import messages as m
from conformance.protocol.host import serve
from conformance.protocol.tensors import write_tensor

KINDS = {
    FileNotFoundError: m.ErrorKind.FILE_NOT_FOUND,
    PermissionError: m.ErrorKind.PERMISSION_DENIED,
    SafetensorError: m.ErrorKind.INVALID_FILE,
    KeyError: m.ErrorKind.CLOSED_HANDLE,
}


class Adapter:
    def initialize(self, params):
        self.run_dir, self.files = params.run_dir, {}
        return m.EngineInfo("minimal", "1.0", [m.Capability.FILE], language="python")

    def describe_error(self, error):
        kind = KINDS.get(type(error))
        return m.ErrorData(kind, type(error).__name__) if kind else None

    def file_open(self, params):
        handle = len(self.files)
        self.files[handle] = safe_open(params.path, "numpy")
        return m.Handle(handle)

    def file_inspect(self, params):
        file = self.files[params.handle]
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        tensors = [m.TensorEntry(name, s.get_dtype(), s.get_shape()) for name, s in slices.items()]
        return m.FileContents(tensors, file.metadata() or {})

    def file_read(self, params):
        file = self.files[params.handle]
        dtype, tensor = file.get_slice(params.tensor).get_dtype(), file.get_tensor(params.tensor)
        return write_tensor(self.run_dir, dtype, tensor.shape, tensor.tobytes())

    def file_close(self, params):
        self.files[params.handle] = None


if __name__ == "__main__":
    serve(Adapter)
