"""A checkpoint ready to answer: model, tokenizer and chat template, and the record of one inference."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from reference_engine.chat import ChatTemplate, Rendered
from reference_engine.checkpoint import Checkpoint
from reference_engine.errors import InvalidArgument
from reference_engine.files import TOKENIZER
from reference_engine.generate import GenerationRequest, generate
from reference_engine.model import SafeTensorsCudaModel
from reference_engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reference_engine.chat import ChatMessage
    from reference_engine.device import Device


@dataclass(frozen=True)
class InferenceResult:
    """One answer and how it came about.

    Attributes:
        ids: New token ids, without the stop id.
        text: Their text, without special tokens; empty if the checkpoint has no tokenizer.
        finish_reason: `stop` at a stop id, `length` at the limit.
        stop_id: The id that stopped it, if one did.
        prompt_tokens: Length of the prompt in tokens.
        positions: Token positions pushed through the model for this answer.
        used_gpu: Whether the weights that computed it lie on a GPU.
        tokens_per_second: Decoding rate; 0 where fewer than two tokens were decoded.
        load_seconds: What loading the checkpoint took.
        inference_seconds: From the prompt's ids to the last id.
    """

    ids: list[int]
    text: str
    finish_reason: str
    stop_id: int | None
    prompt_tokens: int
    positions: int
    used_gpu: bool
    tokens_per_second: float
    load_seconds: float
    inference_seconds: float


class Engine:
    """A loaded checkpoint. `tokenizer` and `template` are None where the checkpoint has none."""

    def __init__(
        self,
        model: SafeTensorsCudaModel,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | None,
        load_seconds: float = 0.0,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.load_seconds = load_seconds

    @classmethod
    def load(cls, path: str | Path, device: Device, dtype: str | None = None) -> Self:
        """Load a checkpoint directory, the directory around a `.safetensors` file, or a GGUF or APR file.

        Raises:
            EngineError: One of `reference_engine.errors`, by cause.
        """
        started = time.perf_counter()
        with Checkpoint(path) as checkpoint:
            template = ChatTemplate.find(checkpoint.side_files)
            tokenizer = Tokenizer(checkpoint.side_files) if TOKENIZER in checkpoint.side_files else None
            id_limit = tokenizer.id_limit if tokenizer else None
            model = SafeTensorsCudaModel.from_safetensors(checkpoint, device, dtype, id_limit=id_limit)
        return cls(model, tokenizer, template, time.perf_counter() - started)

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            InvalidArgument: The checkpoint has none, so only ids can be fed.
        """
        if self.tokenizer is None:
            raise InvalidArgument("prompt", "this checkpoint has no tokenizer.json; feed token ids")
        return self.tokenizer

    def render(self, messages: Sequence[ChatMessage]) -> Rendered:
        """Prompt of a conversation by the checkpoint's template.

        Raises:
            InvalidArgument: The checkpoint has no template, or the template refuses the messages.
        """
        if self.template is None:
            raise InvalidArgument("messages", "this checkpoint has no chat template; use --raw")
        return self.template.prompt(messages, self.require_tokenizer())

    def raw_prompt(self, text: str) -> list[int]:
        """Ids of a prompt given as it is, special tokens included; an empty one becomes BOS where there is one."""
        ids = self.require_tokenizer().encode(text, add_special=True)
        bos = self.model.config.bos_token_id
        return [bos] if not ids and bos is not None else ids

    def infer(self, request: GenerationRequest, on_text: Callable[[str], None] | None = None) -> InferenceResult:
        """Run a request to its end; `on_text` gets the text piece by piece as it becomes complete."""
        tokenizer = self.tokenizer
        outcome, ids = generate(self.model, request, tokenizer.id_limit if tokenizer else None)
        stream = tokenizer.stream() if tokenizer and on_text else None
        for token in ids:
            if stream and on_text:
                on_text(stream.push(token))
        return InferenceResult(
            ids=outcome.ids,
            text=tokenizer.decode_complete(outcome.ids) if tokenizer else "",
            finish_reason=outcome.finish_reason,
            stop_id=outcome.stop_id,
            prompt_tokens=len(request.prompt_ids),
            positions=outcome.positions,
            used_gpu=self.model.used_gpu,
            tokens_per_second=outcome.tokens_per_second,
            load_seconds=self.load_seconds,
            inference_seconds=outcome.prefill_seconds + outcome.decode_seconds,
        )
