"""llama.cpp behind the protocol: models and generation from GGUF, on the CPU and on CUDA.

A directory is a SafeTensors checkpoint: this project's own converter makes a GGUF of it, bit for bit, before llama.cpp
sees anything. A file is handed over as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.corpus.checkpoint import CheckpointInvalid
from conformance.corpus.variants import derive
from conformance.engines.handles import HandleTable, UnknownHandle, WrongRequest
from conformance.protocol import messages as m
from conformance.protocol.host import serve
from conformance.protocol.tensors import write_tensor

if TYPE_CHECKING:
    from conformance.engines.llama_cpp_binding import Log, Model

VARIANTS = {"F32": "gguf-f32", "F16": "gguf-f16", "BF16": "gguf-bf16"}


class NoDevice(Exception):
    """A CUDA device was asked for that the library does not see or was not built for."""

    def __init__(self, device: str) -> None:
        self.device = device
        super().__init__(f"device {device!r}: this build of llama.cpp sees no such device")


@dataclass(frozen=True)
class Loaded:
    """A model under one handle, and the keys of its GGUF file."""

    model: Model
    path: Path

    @cached_property
    def _reader(self) -> Any:
        from gguf import GGUFReader

        return GGUFReader(self.path)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The file's keys and values."""
        return {name: field.contents() for name, field in self._reader.fields.items()}

    @property
    def tied(self) -> bool:
        """Whether the file has no head of its own."""
        return all(tensor.name != "output.weight" for tensor in self._reader.tensors)

    @cached_property
    def ends(self) -> list[int]:
        """Ids that end generation, as the file lists them."""
        keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        return [self.fields[key] for key in keys if key in self.fields]


class LlamaCppEngine:
    """The adapter; the library is loaded by `initialize`."""

    def __init__(self) -> None:
        self._held = HandleTable()
        self._run_dir = ""
        self._threads = 1
        self._log: Log | None = None

    def initialize(self, params: m.Initialize) -> m.EngineInfo:
        """Load the library; on CUDA it multiplies F32 through TF32 in prefill."""
        from importlib.metadata import version

        from conformance.engines import llama_cpp_binding as binding

        self._run_dir, self._threads = params.run_dir, params.threads or 1
        self._log = binding.Log()
        precision = "tf32" if binding.device_count() else "ieee_f32"
        offered = [m.Capability.MODEL, m.Capability.GENERATE]
        named = f"llama-cpp-python {version('llama-cpp-python')}"
        return m.EngineInfo("llama_cpp", named, offered, precision=precision, language="c++")

    def describe_error(self, error: Exception) -> m.ErrorData | None:
        """Kinds of what the adapter and the converter raise."""
        from conformance.engines.llama_cpp_binding import DecodeFailed, ModelRefused, NoTokenizer, TooLong

        kinds: list[tuple[type[Exception] | tuple[type[Exception], ...], m.ErrorKind]] = [
            (UnknownHandle, m.ErrorKind.CLOSED_HANDLE),
            (NoDevice, m.ErrorKind.DEVICE_NOT_FOUND),
            ((WrongRequest, TooLong, NoTokenizer), m.ErrorKind.INVALID_ARGUMENT),
            (FileNotFoundError, m.ErrorKind.FILE_NOT_FOUND),
            (PermissionError, m.ErrorKind.PERMISSION_DENIED),
            ((ModelRefused, CheckpointInvalid), m.ErrorKind.INVALID_MODEL),
            (DecodeFailed, m.ErrorKind.DEVICE_FAILED),
        ]
        kind = next((kind for types, kind in kinds if isinstance(error, types)), None)
        return None if kind is None else m.ErrorData(kind, type(error).__qualname__)

    # --- models -------------------------------------------------------------------------------------------

    def model_load(self, params: m.ModelLoad) -> m.ModelLoaded:
        """Load a GGUF file, or convert a checkpoint directory and load that."""
        from conformance.engines import llama_cpp_binding as binding

        assert self._log is not None
        gpu = _ordinal(params.device, binding.device_count())
        path = _gguf_of(Path(params.path), params.dtype or "F32")
        loaded = Loaded(binding.Model(path, self._log, gpu=gpu, threads=self._threads), path)
        return m.ModelLoaded(
            handle=self._held.hold(loaded),
            type_name="llama_model",
            storage_type_name="ggml_tensor",
            used_gpu=loaded.model.on_gpu,
            config=_config(loaded),
            weight_bytes=loaded.model.weight_bytes,
        )

    def model_unload(self, params: m.Handle) -> None:
        """Free the model."""
        self._held.take(params.handle, Loaded).model.close()

    def model_logits(self, params: m.Logits) -> m.TensorData:
        """One sequence of all ids, in chunks; logits of the last ones, F32."""
        model = self._held.get(params.model, Loaded).model
        _require_known(model, params.ids)
        wanted = min(params.last or len(params.ids), len(params.ids))
        model.restart()
        values = np.concatenate([chunk.copy() for chunk in model.push(params.ids, 0, wanted=wanted)])
        return write_tensor(self._run_dir, "F32", values.shape, values.tobytes())

    # --- text and generation ------------------------------------------------------------------------------

    def tokenizer_encode(self, params: m.Encode) -> m.TokenIds:
        """Ids of plain text."""
        return m.TokenIds(self._held.get(params.model, Loaded).model.encode(params.text, special=False))

    def tokenizer_decode(self, params: m.Decode) -> m.Text:
        """Text of ids, special tokens left out."""
        return m.Text(self._held.get(params.model, Loaded).model.decode(params.ids))

    def chat_render(self, params: m.Render) -> m.Rendered:
        """The file's template through llama-cpp-python's renderer, with the generation prompt."""
        return _rendered(self._held.get(params.model, Loaded), params.messages)

    def generate(self, params: m.Generate) -> m.Generation:
        """Decode greedily as many times as asked; the last answer counts."""
        loaded = self._held.get(params.model, Loaded)
        if params.repeat < 1 or params.max_tokens < 0:
            raise WrongRequest(f"repeat {params.repeat}, max_tokens {params.max_tokens}")
        prompt = _prompt_ids(loaded, params)
        _require_known(loaded.model, prompt)
        for _ in range(params.repeat):
            ids, stop = _generated(loaded.model, prompt, params)
        return m.Generation(
            ids=ids,
            text=loaded.model.decode(ids),
            finish_reason="length" if stop is None else "stop",
            prompt_tokens=len(prompt),
            used_gpu=loaded.model.on_gpu,
            stop_id=stop,
        )


def _ordinal(device: str, count: int) -> int | None:
    """The CUDA device's number; None is the CPU."""
    if device == "cpu":
        return None
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal() or int(index or 0) >= count:
        raise NoDevice(device)
    return int(index or 0)


def _gguf_of(path: Path, dtype: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) == b"GGUF":
                return path
        path = path.parent
    return derive(path, VARIANTS[dtype])


def _generated(model: Model, prompt: list[int], params: m.Generate) -> tuple[list[int], int | None]:
    """New ids, and the id that ended them."""
    random = np.random.default_rng(params.seed)
    model.restart()
    ids: list[int] = []
    pushed, feed = 0, prompt
    while len(ids) < params.max_tokens:
        *_, logits = model.push(feed, pushed, wanted=1)
        pushed += len(feed)
        token = _chosen(logits[-1], params.temperature, random)
        if not params.ignore_eos and model.is_end(token):
            return ids, token
        ids.append(token)
        feed = [token]
    return ids, None


def _chosen(logits: np.ndarray, temperature: float, random: np.random.Generator) -> int:
    """The first maximum, or a draw; llama.cpp's own samplers know no seed that others share."""
    if temperature <= 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return int(random.choice(len(weights), p=weights / weights.sum()))


def _prompt_ids(loaded: Loaded, params: m.Generate) -> list[int]:
    given = [value for value in (params.prompt_ids, params.prompt, params.messages) if value is not None]
    if len(given) != 1:
        raise WrongRequest("give exactly one of prompt_ids, prompt and messages")
    if params.prompt is not None:
        return loaded.model.encode(params.prompt, special=True)
    if params.messages is not None:
        return _rendered(loaded, params.messages).ids
    return params.prompt_ids or []


def _require_known(model: Model, ids: list[int]) -> None:
    if not ids:
        raise WrongRequest("no token to begin with")
    if unknown := [token for token in ids if not 0 <= token < model.vocab_size]:
        raise WrongRequest(f"id {unknown[0]} is not below {model.vocab_size}")


def _rendered(loaded: Loaded, messages: list[m.ChatMessage]) -> m.Rendered:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = loaded.fields.get("tokenizer.chat_template")
    if template is None:
        raise WrongRequest("the file has no chat template")
    eos, bos = (loaded.fields.get(f"tokenizer.ggml.{which}_token_id") for which in ("eos", "bos"))
    spelled = ["" if token is None else loaded.model.decode([token], special=True) for token in (eos, bos)]
    turns: Any = [{"role": one.role, "content": one.content} for one in messages]
    text = Jinja2ChatFormatter(template, spelled[0], spelled[1])(messages=turns).prompt
    return m.Rendered(text, loaded.model.encode(text, special=True))


def _config(loaded: Loaded) -> m.ModelConfig:
    fields = loaded.fields
    architecture = fields["general.architecture"]
    own = {name.removeprefix(f"{architecture}."): value for name, value in fields.items()}
    heads = own["attention.head_count"]
    return m.ModelConfig(
        architecture=architecture,
        hidden_size=own["embedding_length"],
        intermediate_size=own["feed_forward_length"],
        num_layers=own["block_count"],
        num_heads=heads,
        num_kv_heads=own.get("attention.head_count_kv", heads),
        head_dim=own.get("attention.key_length", own["embedding_length"] // heads),
        vocab_size=loaded.model.vocab_size,
        max_positions=own["context_length"],
        rope_theta=float(own.get("rope.freq_base", 10000.0)),
        rms_norm_eps=float(own["attention.layer_norm_rms_epsilon"]),
        tie_word_embeddings=loaded.tied,
        eos_token_ids=loaded.ends,
        bos_token_id=fields.get("tokenizer.ggml.bos_token_id"),
        dtype="",
    )


if __name__ == "__main__":
    serve(LlamaCppEngine)
