"""Every error the engine raises: one base, one type per cause, the facts as fields, one line of text.

Exit codes are those of the `apr` command line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

MAX_QUOTED = 120
MAX_LINE = 600


def quote(text: str) -> str:
    """Quote untrusted text for a message: escaped, on one line, and cut to a readable length."""
    return repr(text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…")


@dataclass(eq=False)
class EngineError(Exception):
    """Base of all errors of this engine; subclasses are named after what went wrong and carry its fields."""

    exit_code: ClassVar[int] = 8

    def _message(self) -> str:
        """Say what happened and what to do about it."""
        return "the engine failed; run again with --verbose"

    def __str__(self) -> str:
        line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self._message())
        return line if len(line) <= MAX_LINE else line[:MAX_LINE] + "…"

    @property
    def fields(self) -> dict[str, Any]:
        """The facts this error carries, by name."""
        return asdict(self)


@dataclass(eq=False)
class FileNotFound(EngineError):
    """No file at this path."""

    path: str
    exit_code: ClassVar[int] = 3

    def _message(self) -> str:
        return f"file not found: {self.path}; check the path"


@dataclass(eq=False)
class PermissionDenied(EngineError):
    """The file exists and may not be read."""

    path: str
    exit_code: ClassVar[int] = 7

    def _message(self) -> str:
        return f"permission denied: {self.path}; make the file readable for this user"


@dataclass(eq=False)
class ReadFailed(EngineError):
    """The operating system could not open or read the file."""

    path: str
    cause: str
    exit_code: ClassVar[int] = 7

    def _message(self) -> str:
        return f"cannot read {self.path}: {self.cause}"


@dataclass(eq=False)
class WriteFailed(EngineError):
    """The operating system could not write the file."""

    path: str
    cause: str
    exit_code: ClassVar[int] = 7

    def _message(self) -> str:
        return f"cannot write {self.path}: {self.cause}"


@dataclass(eq=False)
class InvalidFile(EngineError):
    """The file breaks a rule of its format: SafeTensors, GGUF or APR."""

    path: str
    cause: str
    format: str = "SafeTensors"
    exit_code: ClassVar[int] = 4

    def _message(self) -> str:
        return f"not a valid {self.format} file: {self.path}: {self.cause}; download or convert it again"


@dataclass(eq=False)
class UnsupportedDtype(EngineError):
    """A tensor has a dtype that weights cannot have here."""

    path: str
    tensor: str
    dtype: str
    exit_code: ClassVar[int] = 4

    def _message(self) -> str:
        return (
            f"unsupported dtype {self.dtype} of tensor {quote(self.tensor)} in {self.path};"
            " weights must be F32, F16 or BF16"
        )


@dataclass(eq=False)
class InvalidModel(EngineError):
    """A file of the checkpoint other than its tensors is unusable: config, tokenizer, index or template."""

    path: str
    cause: str
    exit_code: ClassVar[int] = 6

    def _message(self) -> str:
        return f"cannot use {self.path}: {self.cause}"


@dataclass(eq=False)
class MissingTensor(EngineError):
    """A tensor that the model needs is not in the file."""

    path: str
    tensor: str
    exit_code: ClassVar[int] = 6

    def _message(self) -> str:
        return f"tensor {quote(self.tensor)} is missing from {self.path}; the checkpoint is incomplete"


@dataclass(eq=False)
class ShapeMismatch(EngineError):
    """A tensor's shape disagrees with config.json."""

    path: str
    tensor: str
    expected: tuple[int, ...]
    found: tuple[int, ...]
    exit_code: ClassVar[int] = 6

    def _message(self) -> str:
        return (
            f"tensor {quote(self.tensor)} in {self.path} has shape {list(self.found)},"
            f" config.json asks for {list(self.expected)}; one of the two files is wrong"
        )


@dataclass(eq=False)
class DeviceNotFound(EngineError):
    """No device with this ordinal."""

    index: int
    count: int
    exit_code: ClassVar[int] = 14

    def _message(self) -> str:
        if self.count == 0:
            return f"CUDA device {self.index} not found: there are 0 devices; use --no-gpu to run on the CPU"
        return f"device {self.index} not found: there are {self.count}, numbered from 0"


@dataclass(eq=False)
class DeviceFailed(EngineError):
    """The device reported an error that is not about memory; its context may be lost."""

    device: str
    cause: str
    exit_code: ClassVar[int] = 14

    def _message(self) -> str:
        return f"device {self.device} failed: {self.cause}; restart the process"


@dataclass(eq=False)
class OutOfDeviceMemory(EngineError):
    """More bytes were asked for than the device has free."""

    device: str
    asked: int
    free: int
    exit_code: ClassVar[int] = 8

    def _message(self) -> str:
        return (
            f"out of memory on {self.device}: asked for {self.asked} bytes, {self.free} bytes are free;"
            " use a smaller model, fewer tokens or BF16"
        )


@dataclass(eq=False)
class InvalidArgument(EngineError):
    """A caller's argument is outside what is allowed."""

    argument: str
    cause: str
    exit_code: ClassVar[int] = 4

    def _message(self) -> str:
        return f"invalid {self.argument}: {self.cause}"


@dataclass(eq=False)
class ContextTooLong(EngineError):
    """The prompt does not fit the model's positions."""

    tokens: int
    limit: int
    exit_code: ClassVar[int] = 4

    def _message(self) -> str:
        return f"the prompt has {self.tokens} tokens, the model has {self.limit} positions; shorten the prompt"


@dataclass(eq=False)
class NonFiniteLogits(EngineError):
    """The model produced NaN or infinity instead of a best token."""

    position: int

    def _message(self) -> str:
        return f"the logits at position {self.position} are not finite; the weights are damaged or need F32"


@dataclass(eq=False)
class ClosedHandle(EngineError):
    """Something was used after it was closed, dropped or unloaded."""

    what: str
    exit_code: ClassVar[int] = 4

    def _message(self) -> str:
        return f"{self.what} is closed; open it again before using it"
