"""Hugging Face transformers behind the protocol: models and generation, on the CPU and on CUDA.

It is also what golden outputs come from. On the CPU it is compared with itself; what its rows show there is that the
harness asks as the golden run asked, and how it treats checkpoints that are broken.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.engines.handles import HandleTable, UnknownHandle, WrongRequest
from conformance.protocol import messages as m
from conformance.protocol.host import serve
from conformance.protocol.tensors import write_tensor

if TYPE_CHECKING:
    import torch

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class NoDevice(Exception):
    """A CUDA device was asked for that torch does not see."""

    def __init__(self, device: str, count: int) -> None:
        self.device, self.count = device, count
        super().__init__(f"device {device!r} is not here: torch sees {count} CUDA devices")


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer under one handle."""

    model: Any
    tokenizer: Any
    eos: list[int]

    @property
    def on_gpu(self) -> bool:
        """Whether its weights lie on a CUDA device."""
        return bool(self.model.device.type == "cuda")


class TransformersEngine:
    """The adapter; torch and transformers are imported by the first model."""

    def __init__(self) -> None:
        self._held = HandleTable()
        self._run_dir = ""
        self._threads: int | None = None

    def initialize(self, params: m.Initialize) -> m.EngineInfo:
        """Remember where tensors go; products of F32 are IEEE unless somebody allows TF32, and nobody does."""
        from importlib.metadata import version

        self._run_dir, self._threads = params.run_dir, params.threads
        offered = [m.Capability.MODEL, m.Capability.GENERATE]
        return m.EngineInfo("transformers", version("transformers"), offered, precision="ieee_f32", language="python")

    def describe_error(self, error: Exception) -> m.ErrorData | None:
        """Kinds of what transformers, safetensors and torch raise about a checkpoint or a device."""
        import safetensors
        from huggingface_hub.errors import StrictDataclassError  # how a config refuses the type of a field

        name = type(error).__qualname__
        kinds: list[tuple[type[Exception] | tuple[type[Exception], ...], m.ErrorKind]] = [
            (UnknownHandle, m.ErrorKind.CLOSED_HANDLE),
            (NoDevice, m.ErrorKind.DEVICE_NOT_FOUND),
            (WrongRequest, m.ErrorKind.INVALID_ARGUMENT),
            (FileNotFoundError, m.ErrorKind.FILE_NOT_FOUND),
            (PermissionError, m.ErrorKind.PERMISSION_DENIED),
            (safetensors.SafetensorError, m.ErrorKind.INVALID_FILE),
            (MemoryError, m.ErrorKind.OUT_OF_MEMORY),
            ((OSError, ValueError, RuntimeError, StrictDataclassError), m.ErrorKind.INVALID_MODEL),
        ]
        if name in {"OutOfMemoryError", "AcceleratorError"}:
            return m.ErrorData(m.ErrorKind.OUT_OF_MEMORY if "Memory" in name else m.ErrorKind.DEVICE_FAILED, name)
        kind = next((kind for types, kind in kinds if isinstance(error, types)), None)
        return None if kind is None else m.ErrorData(kind, name)

    # --- models -------------------------------------------------------------------------------------------

    def model_load(self, params: m.ModelLoad) -> m.ModelLoaded:
        """Load a checkpoint directory with `from_pretrained`, offline."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self._threads:
            torch.set_num_threads(self._threads)
        directory = _directory(params.path)
        device = _device(params.device)
        dtype = getattr(torch, DTYPES[params.dtype]) if params.dtype else "auto"
        model = _on_device(AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True), device)
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        eos = model.generation_config.eos_token_id
        loaded = Loaded(model, tokenizer, [] if eos is None else list(eos) if isinstance(eos, list) else [eos])
        weights = list(model.parameters())
        return m.ModelLoaded(
            handle=self._held.hold(loaded),
            type_name=_type_name(model),
            storage_type_name=_type_name(weights[0]),
            used_gpu=loaded.on_gpu,
            config=_config(loaded),
            weight_bytes=sum(weight.nbytes for weight in weights),
        )

    def model_unload(self, params: m.Handle) -> None:
        """Drop the model, and what torch keeps of it on the device."""
        import torch

        self._held.take(params.handle, Loaded)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def model_tensors(self, params: m.Handle) -> m.TensorList:
        """The state under the checkpoint's names."""
        from conformance.engines.readers.open_file import spelled

        state = self._held.get(params.handle, Loaded).model.state_dict()
        return m.TensorList([m.TensorEntry(name, spelled(one.dtype), list(one.shape)) for name, one in state.items()])

    def model_logits(self, params: m.Logits) -> m.TensorData:
        """One pass over all ids; logits of the last ones, F32."""
        import torch

        loaded = self._held.get(params.model, Loaded)
        with torch.inference_mode():
            ids = torch.tensor([params.ids], dtype=torch.long, device=loaded.model.device)
            logits = loaded.model(input_ids=ids, use_cache=False, logits_to_keep=params.last or 0).logits[0]
        values = logits.float().cpu().contiguous().numpy()
        return write_tensor(self._run_dir, "F32", values.shape, values.tobytes())

    # --- text and generation ------------------------------------------------------------------------------

    def tokenizer_encode(self, params: m.Encode) -> m.TokenIds:
        """Ids of plain text."""
        tokenizer = self._held.get(params.model, Loaded).tokenizer
        return m.TokenIds(list(tokenizer(params.text, add_special_tokens=False).input_ids))

    def tokenizer_decode(self, params: m.Decode) -> m.Text:
        """Text of ids, special tokens left out."""
        return m.Text(_text(self._held.get(params.model, Loaded), params.ids))

    def chat_render(self, params: m.Render) -> m.Rendered:
        """The checkpoint's template, with the generation prompt."""
        return _rendered(self._held.get(params.model, Loaded), params.messages)

    def generate(self, params: m.Generate) -> m.Generation:
        """Call `generate` as many times as asked; the last answer counts."""
        loaded = self._held.get(params.model, Loaded)
        if params.repeat < 1:
            raise WrongRequest(f"repeat is {params.repeat}, not at least 1")
        prompt = _prompt_ids(loaded, params)
        if not prompt:
            raise WrongRequest("no token to begin with")
        try:
            for _ in range(params.repeat):
                new = _generated(loaded, prompt, params)
        except ValueError as error:
            raise WrongRequest(str(error)) from error  # of the same type as what it says of checkpoints
        stop = new[-1] if new and not params.ignore_eos and new[-1] in loaded.eos else None
        ids = new[:-1] if stop is not None else new
        return m.Generation(
            ids=ids,
            text=_text(loaded, ids),
            finish_reason="stop" if stop is not None else "length",
            prompt_tokens=len(prompt),
            used_gpu=loaded.on_gpu,
            stop_id=stop,
        )


def _directory(path: str) -> Path:
    """It takes what is not a directory for a name on a hub, and a checkpoint's file for nothing."""
    given = Path(path)
    if not given.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    return given if given.is_dir() else given.parent


def _on_device(model: Any, device: torch.device) -> Any:
    return model.to(device).eval()


def _device(name: str) -> torch.device:
    import torch

    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and not 0 <= (device.index or 0) < count:
        raise NoDevice(name, count)
    return device


def _generated(loaded: Loaded, prompt: list[int], params: m.Generate) -> list[int]:
    import torch
    import transformers

    library: Any = transformers
    sampling = {"do_sample": True, "temperature": params.temperature} if params.temperature > 0 else {}
    config = library.GenerationConfig(
        max_new_tokens=params.max_tokens,
        eos_token_id=None if params.ignore_eos or not loaded.eos else loaded.eos,
        pad_token_id=loaded.eos[0] if loaded.eos else 0,
        **({"do_sample": False} | sampling),
    )
    torch.manual_seed(params.seed)
    loaded.model.generation_config.eos_token_id = config.eos_token_id  # what a call leaves None is taken from here
    ids = torch.tensor([prompt], dtype=torch.long, device=loaded.model.device)
    with torch.inference_mode():
        out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    new: list[int] = out[0, len(prompt) :].tolist()
    return new


def _prompt_ids(loaded: Loaded, params: m.Generate) -> list[int]:
    given = [value for value in (params.prompt_ids, params.prompt, params.messages) if value is not None]
    if len(given) != 1:
        raise WrongRequest("give exactly one of prompt_ids, prompt and messages")
    if params.prompt is not None:
        return list(loaded.tokenizer(params.prompt).input_ids)
    if params.messages is not None:
        return _rendered(loaded, params.messages).ids
    return params.prompt_ids or []


def _rendered(loaded: Loaded, messages: list[m.ChatMessage]) -> m.Rendered:
    turns = [{"role": one.role, "content": one.content} for one in messages]
    text = loaded.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    encoded = loaded.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    return m.Rendered(text, [int(token) for token in encoded["input_ids"]])


def _text(loaded: Loaded, ids: list[int]) -> str:
    text: str = loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _config(loaded: Loaded) -> m.ModelConfig:
    config = loaded.model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return m.ModelConfig(
        architecture=(config.architectures or [type(loaded.model).__name__])[0],
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        rope_theta=float(rope.get("rope_theta") or config.rope_theta),
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=bool(config.tie_word_embeddings),
        eos_token_ids=loaded.eos,
        bos_token_id=config.bos_token_id,
        dtype=str(loaded.model.dtype).rpartition(".")[2],
    )


def _type_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


if __name__ == "__main__":
    serve(TransformersEngine)
