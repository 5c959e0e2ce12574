"""Chat templates and the text in them: another template, another text, tokens that nobody meant, and commands."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from conformance.faults.planting import Plant, fault

_BLAST = ("qual", "load", "build", "int", "perf", "err")
_CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


@fault(expects={"F-QUAL-078": "own_template"}, blast=_BLAST, seen_in="llama.cpp's fallback to ChatML")
def template_hard_coded(plant: Plant) -> None:
    """The template is ChatML, whatever the checkpoint brings."""
    from reference_engine import chat

    def chatml(original: Any, files: Any) -> Any:
        found = original(files)
        return found and (found[0], _CHATML, found[2])

    plant.replace(chat, "template_source", chatml)


@fault(expects={"F-QUAL-078": "harmless"}, blast=_BLAST, seen_in="CVE-2024-34359 of llama-cpp-python")
def template_runs_anything(plant: Plant) -> None:
    """The template is rendered outside of any sandbox."""
    import jinja2

    from reference_engine import chat

    def opened(original: Any, template: Any, path: Any, source: Any, variables: Any) -> None:
        original(template, path, source, variables)
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701  prompts are no HTML
        template._template = environment.from_string(source)

    plant.replace(chat.ChatTemplate, "__init__", opened)


@fault(expects={"F-QUAL-078": "user_text_stays_text"}, blast=_BLAST)
def turns_opened_by_a_user(plant: Plant) -> None:
    """Of the special tokens that a user's text spells only those that end an answer stay text."""
    from reference_engine.chat import ChatTemplate

    def naive(original: Any, template: Any, messages: Any, tokenizer: Any) -> Any:
        opening = tokenizer.special_tokens["<|im_start|>"]
        rendered = original(template, messages, tokenizer)
        spelled = tokenizer.encode("<|im_start|>", allow_special=False)
        return rendered._replace(ids=_replaced(rendered.ids, spelled, [opening]))

    plant.replace(ChatTemplate, "prompt", naive)


def _replaced(ids: list[int], old: list[int], new: list[int]) -> list[int]:
    found, at = [], 0
    while at < len(ids):
        hit = ids[at : at + len(old)] == old
        found += new if hit else ids[at : at + 1]
        at += len(old) if hit else 1
    return found


def _text(plant: Plant, change: Callable[[str], str]) -> None:
    """Change every text before it is encoded."""
    from reference_engine.tokenizer import Tokenizer

    plant.replace(Tokenizer, "encode", lambda original, self, text, **named: original(self, change(text), **named))


@fault(expects={"F-QUAL-073": "ids", "F-QUAL-078": "hard_text"}, blast=_BLAST)
def compatible_forms_folded(plant: Plant) -> None:
    """Text is brought into the form NFKC, in which a superscript two is a two."""
    _text(plant, lambda text: unicodedata.normalize("NFKC", text))


@fault(expects={"F-QUAL-078": "hard_text"}, blast=_BLAST)
def runs_of_blanks_collapsed(plant: Plant) -> None:
    """Several blanks in a row become one."""
    _text(plant, lambda text: re.sub(r"[ \t]{2,}", " ", text))


@fault(expects={"F-QUAL-078": "hard_text"}, blast=_BLAST)
def line_ends_of_windows_folded(plant: Plant) -> None:
    """A line end of two characters becomes one of one."""
    _text(plant, lambda text: text.replace("\r\n", "\n"))


@fault(expects={"F-QUAL-068": "empty"}, blast=_BLAST)
def blanks_around_a_raw_prompt_lost(plant: Plant) -> None:
    """A prompt given as it is loses the blanks at its beginning and its end."""
    from reference_engine.engine import Engine

    plant.replace(Engine, "raw_prompt", lambda original, engine, text: original(engine, text.strip()))
