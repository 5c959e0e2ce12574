"""Typed messages of the protocol: JSON-RPC 2.0, one message a line, on the driver's stdin and stdout.

Every method has a parameter type, a result type and the capability an engine must offer to be asked.
Tensors never travel inside a message: they are raw little-endian, C-ordered files in the run directory,
named by a `TensorData` with dtype, shape, length and sha256. The schemas that an engine author reads are
generated from these types (`conformance.protocol.schemas`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

PROTOCOL_VERSION = "1.0"
MAX_LINE_BYTES = 8 * 1024 * 1024


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all parameter and result types; unknown fields are ignored, so that versions can grow."""


class Capability(StrEnum):
    """What an engine can be asked; a check whose capability is not offered is UNTESTED."""

    SOURCE = "source"
    BUILD = "build"
    CLI = "cli"
    FILE = "file"
    DEVICE = "device"
    STORAGE = "storage"
    MODEL = "model"
    GENERATE = "generate"
    TRACE = "trace"


class ErrorKind(StrEnum):
    """What went wrong, in the suite's words; the engine's own type and text travel beside it."""

    FILE_NOT_FOUND = "file_not_found"
    PERMISSION_DENIED = "permission_denied"
    INVALID_FILE = "invalid_file"
    UNSUPPORTED_DTYPE = "unsupported_dtype"
    DEVICE_NOT_FOUND = "device_not_found"
    OUT_OF_MEMORY = "out_of_memory"
    INVALID_MODEL = "invalid_model"
    INVALID_ARGUMENT = "invalid_argument"
    CLOSED_HANDLE = "closed_handle"
    NOT_SUPPORTED = "not_supported"
    DEVICE_FAILED = "device_failed"
    INTERNAL = "internal"


class ErrorData(Message, frozen=True):
    """The `data` of a JSON-RPC error: the kind, the engine's own type name, and the fields it carries."""

    kind: ErrorKind
    type: str = ""
    fields: dict[str, Any] = {}


class RpcError(Message, frozen=True):
    """The `error` member of a response."""

    code: int
    message: str
    data: ErrorData | None = None


class Request(Message, frozen=True, tag_field="jsonrpc", tag="2.0"):
    """One call; `params` is decoded by the method's own type, and absent means no fields."""

    id: int
    method: str
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Response(Message, frozen=True, tag_field="jsonrpc", tag="2.0"):
    """One answer: exactly one of `result` and `error` is present; `id` is None if the request was unreadable."""

    id: int | None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: RpcError | None = None


class Empty(Message, frozen=True):
    """No fields."""


# --- session ------------------------------------------------------------------------------------------


class Initialize(Message, frozen=True, omit_defaults=False):
    """First call of a session. `run_dir` is the only directory the driver may write tensors to.

    A driver that does not speak the major version of `protocol` refuses.
    """

    run_dir: str
    protocol: str = PROTOCOL_VERSION
    seed: int = 0
    threads: int | None = None


class EngineInfo(Message, frozen=True):
    """Who is on trial, what it offers, and in which precision it multiplies F32 (ieee_f32, tf32, bf16)."""

    name: str
    version: str
    capabilities: list[Capability]
    precision: str = "ieee_f32"
    language: str = ""


class Ping(Message, frozen=True):
    """Echoed as it is; measures the protocol itself."""

    payload: str = ""


# --- tensors ------------------------------------------------------------------------------------------


class TensorData(Message, frozen=True):
    """A tensor as a raw little-endian file inside the run directory; dtype in the format's spelling."""

    path: str
    dtype: str
    shape: list[int]
    nbytes: int
    sha256: str


class TensorEntry(Message, frozen=True):
    """A tensor as the engine's own header reader sees it; offsets relative to the data section."""

    name: str
    dtype: str
    shape: list[int]
    begin: int | None = None
    end: int | None = None


# --- file: opening and reading are two calls, so that a file can be changed between them ---------------


class FileOpen(Message, frozen=True):
    """Open a SafeTensors file (or another format that the engine reads, by its content)."""

    path: str


class Handle(Message, frozen=True):
    """Something the engine holds for us until it is closed, freed, dropped or unloaded."""

    handle: int


class FileContents(Message, frozen=True):
    """Names, dtypes and shapes in the file, and `__metadata__` exactly (absent is empty)."""

    tensors: list[TensorEntry]
    metadata: dict[str, str] = {}


class FileRead(Message, frozen=True):
    """Read one tensor's bytes without any conversion."""

    handle: int
    tensor: str


# --- device -------------------------------------------------------------------------------------------


class DeviceInfo(Message, frozen=True):
    """One device as the engine reports it; compared with NVML for the same PCI device."""

    index: int
    name: str
    total_bytes: int
    pci_bus_id: str = ""


class DeviceList(Message, frozen=True):
    """All devices the engine can see, in its own order."""

    devices: list[DeviceInfo]


class DeviceOpen(Message, frozen=True):
    """Open the device with this ordinal; `backend` is `cuda`, or `cpu` (ordinal 0) for a rehearsal."""

    index: int
    backend: str = "cuda"


class DeviceOpened(Message, frozen=True):
    """A handle on an opened device, and what it is."""

    handle: int
    info: DeviceInfo


class DeviceMemory(Message, frozen=True):
    """Free and total bytes of the device; `allocated_bytes` is the engine's own account of live bytes."""

    free_bytes: int
    total_bytes: int
    allocated_bytes: int = 0


class Allocate(Message, frozen=True):
    """Allocate and touch `nbytes` on an opened device; the result is a handle for `device.free`."""

    device: int
    nbytes: int


class Enqueue(Message, frozen=True):
    """Queue work that keeps the device busy for at least `milliseconds`, and return without waiting."""

    device: int
    milliseconds: float


class CopyAcrossStreams(Message, frozen=True):
    """Send `data` through `hops` new streams, each ordered after the last by an event; answer what arrives."""

    device: int
    data: TensorData
    hops: int = 2


class MatMul(Message, frozen=True):
    """Product of two 2-D tensors on the device through the engine's BLAS."""

    device: int
    a: TensorData
    b: TensorData


# --- storage ------------------------------------------------------------------------------------------


class Upload(Message, frozen=True):
    """Copy host tensors to the device. `asynchronous` returns after queueing; `device.synchronize` completes."""

    device: int
    tensors: list[TensorData]
    pinned: bool = False
    asynchronous: bool = False


class Handles(Message, frozen=True):
    """One handle per tensor, in order."""

    handles: list[int]


class Stage(Message, frozen=True):
    """Read tensors into host memory (page-locked if `pinned`) ahead of a timed `storage.upload_staged`."""

    device: int
    tensors: list[TensorData]
    pinned: bool = True


class UploadStaged(Message, frozen=True):
    """Copy staged input to the device `repeat` times into the same buffers and synchronise once at the end.

    From outside, the difference of two counts isolates the transfer.
    """

    staged: int
    repeat: int = 1


class Convert(Message, frozen=True):
    """Widen a stored F16 or BF16 tensor to F32 on its device; the result is a new handle."""

    handle: int
    dtype: str


class Drop(Message, frozen=True):
    """Release stored tensors or buffers."""

    handles: list[int]


class Account(Message, frozen=True):
    """The engine's own account: bytes and count of live storages, and the rounding it applies to each."""

    live_bytes: int
    live_count: int
    rounding_bytes: int = 1


class LoadFile(Message, frozen=True):
    """Load every tensor of a file onto the device: the role of `SafeTensorsCudaLoader`."""

    device: int
    path: str


class StoredTensor(Message, frozen=True):
    """One loaded tensor and the handle of its storage."""

    handle: int
    dtype: str
    shape: list[int]


class LoadedFile(Message, frozen=True):
    """What the loader made of a file; `type_name` is the qualified type of one storage."""

    tensors: dict[str, StoredTensor]
    type_name: str = ""


# --- model and generation -----------------------------------------------------------------------------


class ModelLoad(Message, frozen=True):
    """Load a checkpoint: a directory or a file in one. `device` is `cpu` or `cuda:N`; dtype None keeps the file's."""

    path: str
    device: str
    dtype: str | None = None


class ModelConfig(Message, frozen=True):
    """The fields of config.json that decide what is computed, as the engine understood them."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    eos_token_ids: list[int]
    bos_token_id: int | None = None
    dtype: str = ""


class ModelLoaded(Message, frozen=True):
    """The loaded model; type names are what `SafeTensorsCudaModel` and `CudaStorage` resolved to."""

    handle: int
    type_name: str
    storage_type_name: str
    used_gpu: bool
    config: ModelConfig
    weight_bytes: int


class TensorList(Message, frozen=True):
    """Every weight that the loaded model holds, under the checkpoint's names."""

    tensors: list[TensorEntry]


class Encode(Message, frozen=True):
    """Tokenize plain text without adding special tokens."""

    model: int
    text: str


class TokenIds(Message, frozen=True):
    """A sequence of token ids."""

    ids: list[int]


class Decode(Message, frozen=True):
    """Turn ids into text, leaving special tokens out."""

    model: int
    ids: list[int]


class Text(Message, frozen=True):
    """A piece of text."""

    text: str


class ChatMessage(Message, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class Render(Message, frozen=True):
    """Apply the checkpoint's chat template, with the generation prompt."""

    model: int
    messages: list[ChatMessage]


class Rendered(Message, frozen=True):
    """The prompt as text and as the ids that are fed to the model."""

    text: str
    ids: list[int]


class Generate(Message, frozen=True):
    """Generate from exactly one of `prompt_ids`, `prompt` (raw text) and `messages` (through the template).

    `temperature` 0 is greedy, lowest index first among equal maxima. `repeat` runs the same request that many
    times and answers the last; `ignore_eos` decodes to `max_tokens` whatever is produced (timed rows).
    """

    model: int
    max_tokens: int
    prompt_ids: list[int] | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    temperature: float = 0.0
    seed: int = 0
    ignore_eos: bool = False
    repeat: int = 1


class Generation(Message, frozen=True):
    """New ids only (the stop id is left out), their text, and why generation ended: `stop` or `length`.

    `positions` counts the token positions pushed through the model for this request, where the engine can tell.
    """

    ids: list[int]
    text: str
    finish_reason: str
    prompt_tokens: int
    used_gpu: bool
    stop_id: int | None = None
    positions: int | None = None


class Logits(Message, frozen=True):
    """Teacher-forced logits of the last `last` positions of `ids` (all when None), as F32 [n, vocab]."""

    model: int
    ids: list[int]
    last: int | None = None


class Method(NamedTuple):
    """A row of the protocol: what is asked, what is answered, and the capability it needs."""

    params: type[Message]
    result: type[Message]
    capability: Capability | None


METHODS: dict[str, Method] = {
    "initialize": Method(Initialize, EngineInfo, None),
    "ping": Method(Ping, Ping, None),
    "shutdown": Method(Empty, Empty, None),
    "file.open": Method(FileOpen, Handle, Capability.FILE),
    "file.inspect": Method(Handle, FileContents, Capability.FILE),
    "file.read": Method(FileRead, TensorData, Capability.FILE),
    "file.close": Method(Handle, Empty, Capability.FILE),
    "device.list": Method(Empty, DeviceList, Capability.DEVICE),
    "device.open": Method(DeviceOpen, DeviceOpened, Capability.DEVICE),
    "device.close": Method(Handle, Empty, Capability.DEVICE),
    "device.memory": Method(Handle, DeviceMemory, Capability.DEVICE),
    "device.allocate": Method(Allocate, Handle, Capability.DEVICE),
    "device.free": Method(Handle, Empty, Capability.DEVICE),
    "device.enqueue": Method(Enqueue, Empty, Capability.DEVICE),
    "device.synchronize": Method(Handle, Empty, Capability.DEVICE),
    "device.copy_across_streams": Method(CopyAcrossStreams, TensorData, Capability.DEVICE),
    "device.matmul": Method(MatMul, TensorData, Capability.DEVICE),
    "storage.upload": Method(Upload, Handles, Capability.STORAGE),
    "storage.download": Method(Handle, TensorData, Capability.STORAGE),
    "storage.convert": Method(Convert, Handle, Capability.STORAGE),
    "storage.drop": Method(Drop, Empty, Capability.STORAGE),
    "storage.stage": Method(Stage, Handle, Capability.STORAGE),
    "storage.upload_staged": Method(UploadStaged, Empty, Capability.STORAGE),
    "storage.account": Method(Handle, Account, Capability.STORAGE),
    "storage.load_file": Method(LoadFile, LoadedFile, Capability.STORAGE),
    "model.load": Method(ModelLoad, ModelLoaded, Capability.MODEL),
    "model.unload": Method(Handle, Empty, Capability.MODEL),
    "model.tensors": Method(Handle, TensorList, Capability.MODEL),
    "model.logits": Method(Logits, TensorData, Capability.MODEL),
    "tokenizer.encode": Method(Encode, TokenIds, Capability.GENERATE),
    "tokenizer.decode": Method(Decode, Text, Capability.GENERATE),
    "chat.render": Method(Render, Rendered, Capability.GENERATE),
    "generate": Method(Generate, Generation, Capability.GENERATE),
}
