"""The checkpoint's chat template, rendered in a sandbox: it is a program that came with untrusted weights.

Special tokens spelled inside a message stay text (prompt injection): the template's own become ids.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn, TypedDict

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reference_engine.errors import InvalidArgument, InvalidModel
from reference_engine.files import TEMPLATE, TOKENIZER_CONFIG, SideFiles
from reference_engine.tokenizer import Tokenizer

MAX_TEMPLATE_BYTES = 1 << 20
MAX_RENDERED_CHARS = 16 << 20
MAX_PRODUCT = 1 << 20
RENDER_SECONDS = 5.0
RENDER_BYTES = 256 << 20
STATM = Path("/proc/self/statm")
PAGE_BYTES = resource.getpagesize()
# Filters and methods whose result can be made as large as the template likes.
INFLATING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "indent"})
PRIVATE_USE = range(0xE000, 0xF8FF)


class ChatMessage(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class Rendered(NamedTuple):
    """A prompt as text and as the ids to feed."""

    text: str
    ids: list[int]


class ChatTemplate:
    """A compiled chat template.

    Args:
        path: The file the template came from, named in errors.
        source: Jinja source.
        settings: tokenizer_config.json; the template may use its tokens, `bos_token` and `eos_token` above all.

    Raises:
        InvalidModel: The source is not a template.
    """

    def __init__(self, path: str, source: str, settings: dict[str, Any]) -> None:
        self.path = path
        self._variables = _token_variables(settings)
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters = {k: v for k, v in environment.filters.items() if k not in INFLATING}
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise, strftime_now=_strftime_now)
        environment.globals.pop("lipsum", None)
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError) as error:
            raise InvalidModel(path, f"the chat template does not compile: {error}") from None

    @classmethod
    def find(cls, files: SideFiles) -> ChatTemplate | None:
        """The template of a checkpoint: chat_template.jinja, else tokenizer_config.json; or None."""
        found = template_source(files)
        return None if found is None else cls(*found)

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt text of a conversation, ending where the assistant is to speak.

        Raises:
            InvalidModel: The template fails, asks for something unsafe, or does not end.
            InvalidArgument: The template itself refuses the messages.
        """
        pieces: list[str] = []
        size = 0
        told = self._template.generate(
            messages=messages, add_generation_prompt=True, tools=None, documents=None, **self._variables
        )
        try:
            with _bounds(RENDER_SECONDS, RENDER_BYTES):
                for piece in told:
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_RENDERED_CHARS:
                        break
        except _RefusedByTemplate as error:
            raise InvalidArgument("messages", str(error)) from None
        except Exception as error:  # noqa: BLE001 - the template is a program, which may fail in any way
            raise InvalidModel(self.path, f"the chat template fails: {error}") from None
        if size > MAX_RENDERED_CHARS:
            raise InvalidModel(self.path, "the chat template's output does not end")
        return "".join(pieces)

    def prompt(self, messages: Sequence[ChatMessage], tokenizer: Tokenizer) -> Rendered:
        """Render a conversation and encode it, with special tokens only where the template put them."""
        specials = sorted(filter(None, tokenizer.special_tokens), key=len, reverse=True)
        special = re.compile(f"({'|'.join(map(re.escape, specials))})" if specials else "(?!)")
        used = {char for message in messages for char in message["role"] + message["content"]}
        free = (chr(code) for code in PRIVATE_USE if chr(code) not in used)
        masks: dict[str, str] = defaultdict(lambda: next(free))

        def hide(text: str) -> str:
            return special.sub(lambda found: masks[found[0]], text)

        text = self.render([{"role": hide(said["role"]), "content": hide(said["content"])} for said in messages])
        if not masks:
            return Rendered(text, tokenizer.encode(text))
        shown = {ord(mask): token for token, mask in masks.items()}
        ids: list[int] = []
        for part in special.split(text):
            if part in tokenizer.special_tokens:
                ids.append(tokenizer.special_tokens[part])
            elif part:
                ids += tokenizer.encode(part.translate(shown), allow_special=False)
        return Rendered(text.translate(shown), ids)


class _RefusedByTemplate(Exception):
    """The template called `raise_exception`."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, without operations that can build huge values."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in INFLATING and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers or max(abs(left), abs(right)) > MAX_PRODUCT:
            raise jinja2.exceptions.SecurityError(f"operator {operator} is limited to small numbers")
        return super().call_binop(context, operator, left, right)


@contextmanager
def _bounds(seconds: float, growth: int) -> Iterator[None]:
    """Stop Python code inside the block that runs or grows too long: a loop need not produce output.

    Raises:
        TimeoutError: It took more than `seconds`.
        MemoryError: The process grew by more than `growth` bytes.
    """
    end = time.monotonic() + seconds
    limit = _resident_bytes() + growth

    def watch(_frame: FrameType, _event: str, _argument: object) -> Any:
        if time.monotonic() > end:
            raise TimeoutError(f"it runs for over {seconds:g} s")
        if _resident_bytes() > limit:
            raise MemoryError(f"it uses more than {growth} bytes")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _resident_bytes() -> int:
    with STATM.open("rb", buffering=0) as file:
        return int(file.read(100).split()[1]) * PAGE_BYTES


def template_source(files: SideFiles) -> tuple[str, str, dict[str, Any]] | None:
    """Where a checkpoint's chat template stands, its source, and tokenizer_config.json, which names its tokens.

    The source is chat_template.jinja, or else in tokenizer_config.json: of several, the one named default.
    """
    settings = files.read_json(TOKENIZER_CONFIG) if TOKENIZER_CONFIG in files else {}
    name, source = TOKENIZER_CONFIG, settings.get("chat_template")
    if isinstance(source, list):
        source = {item.get("name"): item.get("template") for item in source if isinstance(item, dict)}.get("default")
    if TEMPLATE in files:
        name, source = TEMPLATE, files.read(TEMPLATE, MAX_TEMPLATE_BYTES).decode("utf-8", "replace")
    if not isinstance(source, str):
        return None
    if len(source) > MAX_TEMPLATE_BYTES:
        raise InvalidModel(files.where(name), f"the chat template is longer than {MAX_TEMPLATE_BYTES}")
    return files.where(name), source, settings


def _token_variables(settings: dict[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token`, …: strings, or objects with their content."""
    tokens = {name: value for name, value in settings.items() if name.endswith("_token")}
    spelled = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    return {"bos_token": "", "eos_token": "", **{name: text for name, text in spelled.items() if isinstance(text, str)}}


def _to_json(value: Any, indent: int | None = None, **_options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise _RefusedByTemplate(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
