"""A checkpoint ready to answer: model, tokenizer and chat template, and the record of one inference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reference_engine.chat import ChatMessage, ChatTemplate, Rendered
from reference_engine.checkpoint import Checkpoint
from reference_engine.device import Device
from reference_engine.errors import InvalidArgument
from reference_engine.files import TOKENIZER
from reference_engine.generate import GenerationRequest, Outcome, generate
from reference_engine.model import SafeTensorsCudaModel
from reference_engine.tokenizer import Tokenizer


@dataclass(kw_only=True)
class InferenceResult(Outcome):
    """One answer and how it came about.

    Attributes:
        text: Of the new ids, without special tokens; empty if the checkpoint has no tokenizer.
        used_gpu: Whether the weights that computed it lie on a GPU.
        load_seconds: What loading the checkpoint took.
    """

    text: str
    used_gpu: bool
    load_seconds: float


@dataclass(eq=False)
class Engine:
    """A loaded checkpoint. `tokenizer` and `template` are None where the checkpoint has none."""

    model: SafeTensorsCudaModel
    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    load_seconds: float = 0.0

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
                on_text(stream(token))
        text = tokenizer.decode_complete(outcome.ids) if tokenizer else ""
        used_gpu, load_seconds = self.model.used_gpu, self.load_seconds
        return InferenceResult(**vars(outcome), text=text, used_gpu=used_gpu, load_seconds=load_seconds)
