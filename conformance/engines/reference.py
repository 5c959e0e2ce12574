"""The reference engine behind the protocol: one method a protocol method, and what its errors mean.

torch is imported with the first device or model, so that a process that only reads files starts without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.engines.handles import UnknownHandle
from conformance.engines.reference_devices import DeviceMethods, type_name
from conformance.protocol import messages as m
from conformance.protocol.tensors import BrokenTensor, write_tensor
from reference_engine import errors
from reference_engine.formats.opening import FORMATS, open_tensors

if TYPE_CHECKING:
    from reference_engine.engine import Engine

ERROR_KINDS: dict[type[Exception], m.ErrorKind] = {
    errors.FileNotFound: m.ErrorKind.FILE_NOT_FOUND,
    errors.PermissionDenied: m.ErrorKind.PERMISSION_DENIED,
    errors.ReadFailed: m.ErrorKind.INVALID_FILE,
    errors.WriteFailed: m.ErrorKind.INVALID_ARGUMENT,
    errors.InvalidFile: m.ErrorKind.INVALID_FILE,
    errors.UnsupportedDtype: m.ErrorKind.UNSUPPORTED_DTYPE,
    errors.InvalidModel: m.ErrorKind.INVALID_MODEL,
    errors.MissingTensor: m.ErrorKind.INVALID_MODEL,
    errors.ShapeMismatch: m.ErrorKind.INVALID_MODEL,
    errors.NonFiniteLogits: m.ErrorKind.INVALID_MODEL,
    errors.DeviceNotFound: m.ErrorKind.DEVICE_NOT_FOUND,
    errors.DeviceFailed: m.ErrorKind.DEVICE_FAILED,
    errors.OutOfDeviceMemory: m.ErrorKind.OUT_OF_MEMORY,
    errors.InvalidArgument: m.ErrorKind.INVALID_ARGUMENT,
    errors.ContextTooLong: m.ErrorKind.INVALID_ARGUMENT,
    errors.ClosedHandle: m.ErrorKind.CLOSED_HANDLE,
}
CAPABILITIES = [
    m.Capability.SOURCE,
    m.Capability.BUILD,
    m.Capability.CLI,
    m.Capability.FILE,
    m.Capability.DEVICE,
    m.Capability.STORAGE,
    m.Capability.MODEL,
    m.Capability.GENERATE,
]


class ReferenceEngine(DeviceMethods):
    """The adapter: files, models and generation here, devices and storages in the base."""

    def initialize(self, params: m.Initialize) -> m.EngineInfo:
        """Remember where tensors go and how many threads may compute."""
        from reference_engine import __version__

        self._run_dir = params.run_dir
        self._threads = params.threads
        return m.EngineInfo("reference", __version__, CAPABILITIES, precision="ieee_f32", language="python")

    def describe_error(self, error: Exception) -> m.ErrorData | None:
        """Kind and fields of the engine's own errors; None for anything else."""
        if isinstance(error, UnknownHandle):
            return m.ErrorData(m.ErrorKind.CLOSED_HANDLE, type(error).__qualname__, {"handle": error.handle})
        if isinstance(error, BrokenTensor):
            return m.ErrorData(m.ErrorKind.INVALID_ARGUMENT, type(error).__qualname__, {"path": error.path})
        if isinstance(error, errors.EngineError) and type(error) in ERROR_KINDS:
            return m.ErrorData(ERROR_KINDS[type(error)], type(error).__qualname__, error.fields)
        return None

    # --- files --------------------------------------------------------------------------------------------

    def file_open(self, params: m.FileOpen) -> m.Handle:
        """Open a SafeTensors, GGUF or APR file and check its header."""
        return m.Handle(self._held.hold(open_tensors(params.path)))

    def file_inspect(self, params: m.Handle) -> m.FileContents:
        """Entries in the header's order, and the metadata."""
        file = self._held.get(params.handle, *FORMATS)
        entries = [m.TensorEntry(t.name, t.dtype, list(t.shape), t.begin, t.end) for t in file.tensors.values()]
        return m.FileContents(entries, file.metadata)

    def file_read(self, params: m.FileRead) -> m.TensorData:
        """One tensor's bytes."""
        file = self._held.get(params.handle, *FORMATS)
        payload = file.read(params.tensor)
        entry = file.tensors[params.tensor]
        return write_tensor(self._run_dir, entry.dtype, entry.shape, payload)

    def file_close(self, params: m.Handle) -> None:
        """Close the file."""
        self._held.take(params.handle, *FORMATS).close()

    # --- models -------------------------------------------------------------------------------------------

    def model_load(self, params: m.ModelLoad) -> m.ModelLoaded:
        """Load a checkpoint onto `cpu` or `cuda:N`."""
        from reference_engine.device import parse_device
        from reference_engine.engine import Engine

        device = self._open(*parse_device(params.device))
        try:
            engine = Engine.load(params.path, device, params.dtype)
        except BaseException:
            device.close()
            raise
        model = engine.model
        return m.ModelLoaded(
            handle=self._held.hold(engine),
            type_name=type_name(model),
            storage_type_name=type_name(next(iter(model.weights.storages.values()))),
            used_gpu=model.used_gpu,
            config=_config(engine),
            weight_bytes=model.weights.nbytes,
        )

    def model_unload(self, params: m.Handle) -> None:
        """Drop the weights and close the device."""
        from reference_engine.engine import Engine

        model = self._held.take(params.handle, Engine).model
        model.unload()
        model.device.close()

    def model_tensors(self, params: m.Handle) -> m.TensorList:
        """Weights under the checkpoint's names."""
        storages = self._engine(params.handle).model.weights.storages
        return m.TensorList([m.TensorEntry(name, s.dtype, list(s.shape)) for name, s in storages.items()])

    def model_logits(self, params: m.Logits) -> m.TensorData:
        """Teacher-forced logits, F32."""
        from reference_engine.storage import as_bytes

        logits = self._engine(params.model).model.logits(params.ids, params.last)
        return self._write("F32", logits.shape, as_bytes(logits).cpu())

    # --- text and generation ------------------------------------------------------------------------------

    def tokenizer_encode(self, params: m.Encode) -> m.TokenIds:
        """Ids of plain text."""
        return m.TokenIds(self._engine(params.model).require_tokenizer().encode(params.text))

    def tokenizer_decode(self, params: m.Decode) -> m.Text:
        """Text of ids."""
        return m.Text(self._engine(params.model).require_tokenizer().decode(params.ids))

    def chat_render(self, params: m.Render) -> m.Rendered:
        """Prompt of a conversation."""
        text, ids = self._engine(params.model).render(_messages(params.messages))
        return m.Rendered(text, ids)

    def generate(self, params: m.Generate) -> m.Generation:
        """Generate `repeat` times and answer the last."""
        from reference_engine.generate import GenerationRequest

        if params.repeat < 1:
            raise errors.InvalidArgument("repeat", f"{params.repeat} is not at least 1")
        engine = self._engine(params.model)
        request = GenerationRequest(
            self._prompt_ids(engine, params),
            params.max_tokens,
            temperature=params.temperature,
            seed=params.seed,
            ignore_eos=params.ignore_eos,
        )
        for _ in range(params.repeat - 1):
            engine.infer(request)
        result = engine.infer(request)
        return m.Generation(
            ids=result.ids,
            text=result.text,
            finish_reason=result.finish_reason,
            prompt_tokens=result.prompt_tokens,
            used_gpu=result.used_gpu,
            stop_id=result.stop_id,
            positions=result.positions,
        )

    def _prompt_ids(self, engine: Engine, params: m.Generate) -> list[int]:
        given = [value for value in (params.prompt_ids, params.prompt, params.messages) if value is not None]
        if len(given) != 1:
            raise errors.InvalidArgument("prompt", "give exactly one of prompt_ids, prompt and messages")
        if params.prompt is not None:
            return engine.raw_prompt(params.prompt)
        if params.messages is not None:
            return engine.render(_messages(params.messages)).ids
        return params.prompt_ids or []

    def _engine(self, handle: int) -> Engine:
        from reference_engine.engine import Engine

        return self._held.get(handle, Engine)


def _messages(messages: list[m.ChatMessage]) -> list[Any]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _config(engine: Engine) -> m.ModelConfig:
    config = engine.model.config
    return m.ModelConfig(
        architecture=config.architecture,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        max_positions=config.max_positions,
        rope_theta=config.rope_theta,
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=config.tie_word_embeddings,
        eos_token_ids=list(config.eos_token_ids),
        bos_token_id=config.bos_token_id,
        dtype=config.dtype,
    )


if __name__ == "__main__":
    from conformance.protocol import host

    host.serve(ReferenceEngine)
