"""Any OpenAI-compatible server behind the protocol: `python -m conformance.engines.openai_engine MANIFEST`.

Its answers are text. Their ids are those of the checkpoint's own tokenizer, and which id ended an answer is not told;
rows that need logits, templates or that id are left out by the manifest. The server is told on which device to run by
its command, so only the CPU is offered unless the command says otherwise.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.corpus.checkpoint import CheckpointInvalid, fingerprint
from conformance.corpus.variants import derive
from conformance.engines.handles import HandleTable, UnknownHandle
from conformance.engines.http_server import AnswerRefused, HttpServer, NeverHealthy, ServerDied, free_port
from conformance.manifest import BrokenManifest, LoadedManifest, PortTaken, ServerTable, load_manifest, port_is_free
from conformance.protocol import messages as m
from conformance.protocol.host import serve

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class WrongRequest(Exception):
    """A request that makes no sense."""


class NotTold(Exception):
    """A thing that an OpenAI-compatible server does not tell."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"an OpenAI-compatible server does not tell {what}")


class NoDevice(Exception):
    """The server's command says where it runs, and that is not there."""

    def __init__(self, device: str) -> None:
        self.device = device
        super().__init__(f"device {device!r}: the manifest's server runs on the CPU")


@dataclass(frozen=True)
class Served:
    """A running server and the checkpoint that it serves."""

    server: HttpServer
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


class OpenAiEngine:
    """The adapter; one server process a loaded model."""

    def __init__(self, manifest: LoadedManifest, table: ServerTable) -> None:
        self._manifest, self._table = manifest, table
        self._held = HandleTable()

    def initialize(self, _params: m.Initialize) -> m.EngineInfo:
        """Who it is, as the manifest says; no server is started yet."""
        engine = self._manifest.manifest.engine
        offered = [m.Capability.MODEL, m.Capability.GENERATE]
        return m.EngineInfo(engine.name, _version(engine.requires), offered, engine.precision, engine.language)

    def describe_error(self, error: Exception) -> m.ErrorData | None:
        """Kinds of what the server and the adapter answer."""
        if isinstance(error, AnswerRefused):
            kind = m.ErrorKind.INVALID_ARGUMENT if error.blames_request else m.ErrorKind.INTERNAL
            return m.ErrorData(kind, "AnswerRefused")
        kinds: list[tuple[type[Exception] | tuple[type[Exception], ...], m.ErrorKind]] = [
            (UnknownHandle, m.ErrorKind.CLOSED_HANDLE),
            (NoDevice, m.ErrorKind.DEVICE_NOT_FOUND),
            (WrongRequest, m.ErrorKind.INVALID_ARGUMENT),
            (NotTold, m.ErrorKind.NOT_SUPPORTED),
            (FileNotFoundError, m.ErrorKind.FILE_NOT_FOUND),
            ((CheckpointInvalid, ServerDied, NeverHealthy), m.ErrorKind.INVALID_MODEL),
            (PortTaken, m.ErrorKind.INTERNAL),
        ]
        kind = next((kind for types, kind in kinds if isinstance(error, types)), None)
        return None if kind is None else m.ErrorData(kind, type(error).__qualname__)

    # --- models -------------------------------------------------------------------------------------------

    def model_load(self, params: m.ModelLoad) -> m.ModelLoaded:
        """Start a server on the checkpoint and wait until it is healthy."""
        if params.device != "cpu":
            raise NoDevice(params.device)
        directory = _directory(params.path)
        weights = fingerprint(directory).weight_bytes
        path = directory if self._table.model == "directory" else derive(directory, self._table.model)
        served = Served(self._started(path), directory, self._table.model_name.replace("{model}", str(path)))
        return m.ModelLoaded(
            handle=self._held.hold(served),
            type_name=self._manifest.manifest.engine.name,
            storage_type_name="",
            used_gpu=False,
            config=_config(served.config),
            weight_bytes=weights,
        )

    def _started(self, model: Path) -> HttpServer:
        port = self._table.port or free_port()
        if not port_is_free(port):
            raise PortTaken(self._manifest.manifest.engine.name, port)
        server = HttpServer(self._manifest.filled(self._table.command, model=str(model), port=str(port)), port)
        server.wait_until_healthy(self._table.health, self._table.startup_timeout_s)
        return server

    def model_unload(self, params: m.Handle) -> None:
        """End the server."""
        self._held.take(params.handle, Served).server.close()

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
        """POST the request as many times as asked; the last answer counts."""
        served = self._held.get(params.model, Served)
        if params.repeat < 1:
            raise WrongRequest(f"repeat is {params.repeat}, not at least 1")
        path, request = self._request(served, params)
        for _ in range(params.repeat):
            answer = served.server.ask(path, request, self._table.answer_timeout_s)
        try:
            choice, usage = answer["choices"][0], answer["usage"]
            text = choice["text"] if "text" in choice else choice["message"]["content"] or ""
            reason, counted = choice["finish_reason"], usage["prompt_tokens"]
        except (LookupError, TypeError) as error:
            raise AnswerRefused(path, 200, f"no {error} in {json.dumps(answer)[:300]}") from error
        return m.Generation(
            ids=_ids(served, text),
            text=text,
            finish_reason=str(reason),
            prompt_tokens=int(counted),
            used_gpu=False,
        )

    def _request(self, served: Served, params: m.Generate) -> tuple[str, dict[str, Any]]:
        given = [value for value in (params.prompt_ids, params.prompt, params.messages) if value is not None]
        if len(given) != 1:
            raise WrongRequest("give exactly one of prompt_ids, prompt and messages")
        common = {"model": served.name, "max_tokens": params.max_tokens, "temperature": params.temperature}
        common |= {"seed": params.seed} | self._table.request
        if params.ignore_eos:
            if not self._table.ignore_eos:
                raise NotTold("what comes after the end")
            common[self._table.ignore_eos] = True
        if params.messages is not None:
            turns = [{"role": one.role, "content": one.content} for one in params.messages]
            return "/v1/chat/completions", common | {"messages": turns}
        if params.prompt is not None:
            return "/v1/completions", common | {"prompt": params.prompt}
        ids = params.prompt_ids or []
        by_text = served.tokenizer.decode(ids, skip_special_tokens=False)
        return "/v1/completions", common | {"prompt": ids if self._table.accepts_ids else by_text}


def _ids(served: Served, text: str) -> list[int]:
    ids: list[int] = served.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _directory(path: str) -> Path:
    given = Path(path)
    if not given.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    return given if given.is_dir() else given.parent


def _version(modules: tuple[str, ...]) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{modules[0]} {version(modules[0])}" if modules else "unknown"
    except PackageNotFoundError:
        return "unknown"


def _config(config: dict[str, Any]) -> m.ModelConfig:
    """What the checkpoint says; what the server understood of it is not told."""
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


def main() -> None:
    """Serve the engine of the manifest that is named on the command line."""
    manifest = load_manifest(sys.argv[1])
    table = manifest.manifest.server
    if table is None:
        raise BrokenManifest(manifest.path, "no [server] table: no server to start")
    serve(lambda: OpenAiEngine(manifest, table))


if __name__ == "__main__":
    main()
