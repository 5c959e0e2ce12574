"""mistral.rs behind the protocol: a Rust engine on candle, through its Python wheel, on the CPU."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance.engines.text_engine import TextEngine, Wire
from conformance.protocol.host import serve
from conformance.protocol.messages import Capability, EngineInfo, ErrorKind

ARCHITECTURES = {
    "LlamaForCausalLM": "Llama",
    "MistralForCausalLM": "Mistral",
    "Qwen2ForCausalLM": "Qwen2",
    "Qwen3ForCausalLM": "Qwen3",
}


class ModelRefused(Exception):
    """mistral.rs does not load a checkpoint; its own words are the reason."""

    def __init__(self, path: Path, said: str) -> None:
        self.path, self.said = path, said
        super().__init__(f"{path}: {said}")


class RequestRefused(Exception):
    """mistral.rs does not answer a request; its own words are the reason."""


class Runner:
    """One loaded model: a single sequence at a time, nothing kept between requests."""

    def __init__(self, path: Path) -> None:
        import mistralrs

        self._library: Any = mistralrs
        try:
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            named = ARCHITECTURES[config["architectures"][0]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelRefused(path, f"no architecture that the adapter knows: {error!r}") from error
        which = mistralrs.Which.Plain(
            model_id=str(path), arch=getattr(mistralrs.Architecture, named), dtype=mistralrs.ModelDType.F32
        )
        try:
            self._runner: Any = mistralrs.Runner(which=which, prefix_cache_n=0, token_source="none", max_seqs=1)  # noqa: S106
        except Exception as error:
            raise ModelRefused(path, str(error)) from error

    def ask(self, path: str, request: dict[str, Any], _seconds: float) -> dict[str, Any]:
        """Its answer as the OpenAI interface shapes it."""
        asked = {"model": "default", "max_tokens": request["max_tokens"], "temperature": request["temperature"]}
        try:
            if path == "/v1/chat/completions":
                wanted = self._library.ChatCompletionRequest(messages=request["messages"], **asked)
                answer = self._runner.send_chat_completion_request(wanted)
            else:
                answer = self._runner.send_completion_request(
                    self._library.CompletionRequest(prompt=request["prompt"], **asked)
                )
        except Exception as error:
            raise RequestRefused(str(error)) from error
        return _shaped(answer)

    def close(self) -> None:
        """Drop the model."""
        del self._runner


def _shaped(answer: Any) -> dict[str, Any]:
    choice = answer.choices[0]
    said = {"text": choice.text} if hasattr(choice, "text") else {"message": {"content": choice.message.content}}
    return {
        "choices": [said | {"finish_reason": choice.finish_reason}],
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "completion_tokens": answer.usage.completion_tokens,
        },
    }


def _engine() -> TextEngine:
    offered = [Capability.MODEL, Capability.GENERATE]
    info = EngineInfo("mistralrs", f"mistralrs {version('mistralrs')}", offered, language="rust")
    kinds: dict[type[Exception], ErrorKind] = {
        ModelRefused: ErrorKind.INVALID_MODEL,
        RequestRefused: ErrorKind.INVALID_ARGUMENT,
    }
    return TextEngine(info, Runner, Wire(), kinds)


if __name__ == "__main__":
    serve(_engine)
