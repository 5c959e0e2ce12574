"""Engines that take and give text in OpenAI's shapes, over HTTP or in this process.

The ids of an answer are those that the checkpoint's own tokenizer makes of its text, and which id ended it is not told;
rows that need logits, rendered templates or that id are left out by the engine's manifest. They run on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from conformance.corpus.checkpoint import CheckpointInvalid, fingerprint
from conformance.corpus.variants import derive
from conformance.engines.handles import HandleTable, UnknownHandle, WrongRequest
from conformance.engines.http_server import AnswerRefused
from conformance.protocol import messages as m

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_REST_OF_A_CHARACTER = 3
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class NotTold(Exception):
    """A thing that an interface of texts does not tell."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"an interface of texts does not tell {what}")


class NoDevice(Exception):
    """Another device than the CPU was asked for."""

    def __init__(self, device: str) -> None:
        self.device = device
        super().__init__(f"device {device!r}: this adapter runs its engine on the CPU")


KINDS: dict[type[Exception], m.ErrorKind] = {
    UnknownHandle: m.ErrorKind.CLOSED_HANDLE,
    NoDevice: m.ErrorKind.DEVICE_NOT_FOUND,
    WrongRequest: m.ErrorKind.INVALID_ARGUMENT,
    NotTold: m.ErrorKind.NOT_SUPPORTED,
    FileNotFoundError: m.ErrorKind.FILE_NOT_FOUND,
    CheckpointInvalid: m.ErrorKind.INVALID_MODEL,
}


class Interface(Protocol):
    """A model that answers requests."""

    def ask(self, path: str, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a request to `/v1/completions` or `/v1/chat/completions`."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True)
class Wire:
    """How an engine is asked: the fields of a manifest's `[server]` table."""

    model: str = "directory"
    model_name: str = "{model}"
    request: dict[str, Any] = field(default_factory=dict)
    accepts_ids: bool = False
    ignore_eos: str = ""
    answer_timeout_s: float = 300.0


@dataclass(frozen=True)
class Served:
    """A model that answers, and the checkpoint that it was made of."""

    interface: Interface
    directory: Path
    name: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's own tokenizer."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.directory / "tokenizer.json"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json."""
        read: dict[str, Any] = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))
        return read


class TextEngine:
    """The adapter.

    Args:
        info: Who the engine is.
        opened: Makes an interface of a checkpoint directory or a GGUF, as `wire.model` says.
        wire: How it is asked.
        kinds: What its own exceptions mean.
    """

    def __init__(
        self,
        info: m.EngineInfo,
        opened: Callable[[Path], Interface],
        wire: Wire,
        kinds: dict[type[Exception], m.ErrorKind],
    ) -> None:
        self._info, self._opened, self._wire = info, opened, wire
        self._kinds = kinds | KINDS
        self._held = HandleTable()

    def initialize(self, _params: m.Initialize) -> m.EngineInfo:
        """Who it is; nothing is started yet."""
        return self._info

    def describe_error(self, error: Exception) -> m.ErrorData | None:
        """Kinds of what the engine and the adapter answer."""
        if isinstance(error, AnswerRefused):
            kind = m.ErrorKind.INVALID_ARGUMENT if error.blames_request else m.ErrorKind.INTERNAL
            return m.ErrorData(kind, "AnswerRefused")
        known = next((kind for type_, kind in self._kinds.items() if isinstance(error, type_)), None)
        return None if known is None else m.ErrorData(known, type(error).__qualname__)

    # --- models -------------------------------------------------------------------------------------------

    def model_load(self, params: m.ModelLoad) -> m.ModelLoaded:
        """Open the checkpoint, or a GGUF that is made of it."""
        if params.device != "cpu":
            raise NoDevice(params.device)
        directory = _directory(params.path)
        weights = fingerprint(directory).weight_bytes
        path = directory if self._wire.model == "directory" else derive(directory, self._wire.model)
        served = Served(self._opened(path), directory, self._wire.model_name.replace("{model}", str(path)))
        return m.ModelLoaded(
            handle=self._held.hold(served),
            type_name=self._info.name,
            storage_type_name="",
            used_gpu=False,
            config=_config(served.config),
            weight_bytes=weights,
        )

    def model_unload(self, params: m.Handle) -> None:
        """Close it."""
        self._held.take(params.handle, Served).interface.close()

    def model_logits(self, _params: m.Logits) -> m.TensorData:
        """Not told."""
        raise NotTold("logits")

    # --- text and generation ------------------------------------------------------------------------------

    def tokenizer_encode(self, params: m.Encode) -> m.TokenIds:
        """Ids by the checkpoint's tokenizer: the interface has none."""
        return m.TokenIds(_ids(self._held.get(params.model, Served), params.text))

    def tokenizer_decode(self, params: m.Decode) -> m.Text:
        """Text by the checkpoint's tokenizer."""
        return m.Text(self._held.get(params.model, Served).tokenizer.decode(params.ids))

    def generate(self, params: m.Generate) -> m.Generation:
        """Send the request as many times as asked; the last answer counts."""
        served = self._held.get(params.model, Served)
        if params.repeat < 1:
            raise WrongRequest(f"repeat is {params.repeat}, not at least 1")
        path, request = self._request(served, params)
        for _ in range(params.repeat):
            answer = served.interface.ask(path, request, self._wire.answer_timeout_s)
        try:
            choice, usage = answer["choices"][0], answer["usage"]
            text = _said(choice)
            reason, counted = choice["finish_reason"], usage["prompt_tokens"]
            told = int(usage.get("completion_tokens") or params.max_tokens)
        except (LookupError, TypeError) as error:
            raise AnswerRefused(path, 200, f"no {error} in {json.dumps(answer)[:300]}") from error
        ids = _ids(served, text)
        if reason == "length" and (len(ids) < told or text.endswith(_BROKEN)):
            ids = self._completed(served, path, request, text)[:told] or ids
        return m.Generation(
            ids=ids,
            text=text,
            finish_reason=str(reason),
            prompt_tokens=int(counted),
            used_gpu=False,
        )

    def _completed(self, served: Served, path: str, request: dict[str, Any], text: str) -> list[int]:
        """Ids of a longer answer that begins with this text; none if it does not.

        A limit can fall within a character. Its text then lacks the character, or has a mark in its place, and the ids
        of a part of a character cannot be made of that.
        """
        longer = request | {"max_tokens": request["max_tokens"] + _REST_OF_A_CHARACTER}
        no_answer: tuple[type[Exception], ...] = (AnswerRefused, LookupError, TypeError, *self._kinds)
        try:
            said = _said(served.interface.ask(path, longer, self._wire.answer_timeout_s)["choices"][0])
        except no_answer:
            return []
        return _ids(served, said) if said.startswith(text.rstrip(_BROKEN)) else []

    def _request(self, served: Served, params: m.Generate) -> tuple[str, dict[str, Any]]:
        given = [value for value in (params.prompt_ids, params.prompt, params.messages) if value is not None]
        if len(given) != 1:
            raise WrongRequest("give exactly one of prompt_ids, prompt and messages")
        common = {"model": served.name, "max_tokens": params.max_tokens, "temperature": params.temperature}
        common |= {"seed": params.seed} | self._wire.request
        if params.ignore_eos:
            if not self._wire.ignore_eos:
                raise NotTold("what comes after the end")
            common[self._wire.ignore_eos] = True
        if params.messages is not None:
            turns = [{"role": one.role, "content": one.content} for one in params.messages]
            return "/v1/chat/completions", common | {"messages": turns}
        if params.prompt is not None:
            return "/v1/completions", common | {"prompt": params.prompt}
        ids = params.prompt_ids or []
        by_text = served.tokenizer.decode(ids, skip_special_tokens=False)
        return "/v1/completions", common | {"prompt": ids if self._wire.accepts_ids else by_text}


def _said(choice: dict[str, Any]) -> str:
    text: str = choice["text"] if "text" in choice else choice["message"]["content"] or ""
    return text


def _ids(served: Served, text: str) -> list[int]:
    ids: list[int] = served.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _directory(path: str) -> Path:
    given = Path(path)
    if not given.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    return given if given.is_dir() else given.parent


def _config(config: dict[str, Any]) -> m.ModelConfig:
    """What the checkpoint says; what the engine understood of it is not told."""
    heads = config["num_attention_heads"]
    ends = config.get("eos_token_id")
    rope = config.get("rope_parameters") or {}
    return m.ModelConfig(
        architecture=(config.get("architectures") or [""])[0],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads", heads),
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocab_size=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        rms_norm_eps=config["rms_norm_eps"],
        tie_word_embeddings=bool(config.get("tie_word_embeddings")),
        eos_token_ids=ends if isinstance(ends, list) else [] if ends is None else [ends],
    )
