"""Every error the engine raises: one base, one type per cause, the facts as fields, one line of text.

Exit codes are those of the `apr` command line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, dataclass_transform

MAX_QUOTED = 120
MAX_LINE = 600


def quote(text: str) -> str:
    """Quote untrusted text for a message: escaped, on one line, and cut to a readable length."""
    return repr(text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…")


@dataclass_transform(eq_default=False)
@dataclass(eq=False)
class EngineError(Exception):
    """Base of all errors of this engine; subclasses are dataclasses, named after what went wrong.

    Attributes:
        exit_code: Of a command that ends so.
        text: What happened and what to do about it, with the fields in braces.
    """

    exit_code: ClassVar[int] = 8
    text: ClassVar[str] = "the engine failed; run again with --verbose"

    def __init_subclass__(cls, exit_code: int = 8) -> None:
        cls.exit_code = exit_code
        dataclass(eq=False)(cls)

    def _message(self) -> str:
        return self.text.format(**self.fields)

    def __str__(self) -> str:
        line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self._message())
        return line if len(line) <= MAX_LINE else line[:MAX_LINE] + "…"

    @property
    def fields(self) -> dict[str, Any]:
        """The facts this error carries, by name."""
        return asdict(self)


class FileNotFound(EngineError, exit_code=3):
    """No file at this path."""

    path: str
    text = "file not found: {path}; check the path"


class PermissionDenied(EngineError, exit_code=7):
    """The file exists and may not be read."""

    path: str
    text = "permission denied: {path}; make the file readable for this user"


class ReadFailed(EngineError, exit_code=7):
    """The operating system could not open or read the file."""

    path: str
    cause: str
    text = "cannot read {path}: {cause}"


class WriteFailed(EngineError, exit_code=7):
    """The operating system could not write the file."""

    path: str
    cause: str
    text = "cannot write {path}: {cause}"


class InvalidFile(EngineError, exit_code=4):
    """The file breaks a rule of its format: SafeTensors, GGUF or APR."""

    path: str
    cause: str
    format: str = "SafeTensors"
    text = "not a valid {format} file: {path}: {cause}; download or convert it again"


class UnsupportedDtype(EngineError, exit_code=4):
    """A tensor has a dtype that weights cannot have here."""

    path: str
    tensor: str
    dtype: str

    def _message(self) -> str:
        tensor = f"tensor {quote(self.tensor)} in {self.path}"
        return f"unsupported dtype {self.dtype} of {tensor}; weights must be F32, F16 or BF16"


class InvalidModel(EngineError, exit_code=6):
    """A file of the checkpoint other than its tensors is unusable: config, tokenizer, index or template."""

    path: str
    cause: str
    text = "cannot use {path}: {cause}"


class MissingTensor(EngineError, exit_code=6):
    """A tensor that the model needs is not in the file."""

    path: str
    tensor: str

    def _message(self) -> str:
        return f"tensor {quote(self.tensor)} is missing from {self.path}; the checkpoint is incomplete"


class ShapeMismatch(EngineError, exit_code=6):
    """A tensor's shape disagrees with config.json."""

    path: str
    tensor: str
    expected: tuple[int, ...]
    found: tuple[int, ...]

    def _message(self) -> str:
        found = f"tensor {quote(self.tensor)} in {self.path} has shape {list(self.found)}"
        return f"{found}, config.json asks for {list(self.expected)}; one of the two files is wrong"


class DeviceNotFound(EngineError, exit_code=14):
    """No device with this ordinal."""

    index: int
    count: int
    text = "device {index} not found: there are {count} devices, numbered from 0; use --no-gpu to run on the CPU"


class DeviceFailed(EngineError, exit_code=14):
    """The device reported an error that is not about memory; its context may be lost."""

    device: str
    cause: str
    text = "device {device} failed: {cause}; restart the process"


class OutOfDeviceMemory(EngineError):
    """More bytes were asked for than the device has free."""

    device: str
    asked: int
    free: int
    text = "out of memory on {device}: asked for {asked} bytes, {free} free; use a smaller model, fewer tokens or BF16"


class InvalidArgument(EngineError, exit_code=4):
    """A caller's argument is outside what is allowed."""

    argument: str
    cause: str
    text = "invalid {argument}: {cause}"


class ContextTooLong(EngineError, exit_code=4):
    """The prompt does not fit the model's positions."""

    tokens: int
    limit: int
    text = "the prompt has {tokens} tokens, the model has {limit} positions; shorten the prompt"


class NonFiniteLogits(EngineError):
    """The model produced NaN or infinity instead of a best token."""

    position: int
    text = "the logits at position {position} are not finite; the weights are damaged or need F32"


class ClosedHandle(EngineError, exit_code=4):
    """Something was used after it was closed, dropped or unloaded."""

    what: str
    text = "{what} is closed; open it again before using it"
