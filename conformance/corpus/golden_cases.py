"""Prompts for golden runs, and what a right answer to each must show."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from conformance.protocol.messages import ChatMessage

DEFAULT_CASES = Path(__file__).with_name("golden_cases.toml")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]")


class Expectation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the generated text must show: every demand given must hold.

    `contains` and `absent` are matched as whole words without regard to case; `stops` demands a stop id.
    """

    equals: str | None = None
    contains: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    stops: bool = False

    def met_by(self, text: str, *, stopped: bool) -> bool:
        """Whether a generation satisfies every demand."""
        return (
            (self.equals is None or text.strip() == self.equals.strip())
            and all(has_word(text, word) for word in self.contains)
            and not any(has_word(text, word) for word in self.absent)
            and (stopped or not self.stops)
        )


def has_word(text: str, word: str) -> bool:
    """Whether `word` stands in `text` as a whole word: "4" is neither in "14", nor in "4.5", nor in "-4".

    Scripts written without spaces have no word boundary to look for; there a substring counts.
    """
    if _UNSPACED.search(word):
        return word in text
    before, after = r"(?<!\w)", r"(?!\w)"
    if word[:1].isdigit():
        before += r"(?<!\d[.,])(?<![-\u2212])"
    if word[-1:].isdigit():
        after += r"(?![.,]\d)"
    return re.search(before + re.escape(word) + after, text, re.IGNORECASE) is not None


class GoldenPrompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One prompt of a golden run: exactly one of `prompt`, `messages` and `prompt_ids`.

    A `prompt` is one user turn through the chat template, or plain text if `raw`. `{filler}` in any text is
    replaced by `filler`, repeated until the rendered prompt has `min_tokens` ids; `cut_to` keeps the first ids
    of a raw prompt. `all_columns` asks for the whole vocabulary's logits where it is small.
    """

    name: str
    rows: tuple[str, ...]
    max_tokens: int
    prompt: str | None = None
    messages: tuple[ChatMessage, ...] | None = None
    prompt_ids: tuple[int, ...] | None = None
    raw: bool = False
    filler: str = ""
    min_tokens: int = 0
    cut_to: int | None = None
    expect: Expectation | None = None
    all_columns: bool = False

    def __post_init__(self) -> None:
        """Refuse a case that could not be rendered."""
        given = [value for value in (self.prompt, self.messages, self.prompt_ids) if value is not None]
        if len(given) != 1:
            raise ValueError(f"{self.name}: give exactly one of prompt, messages and prompt_ids")
        if self.max_tokens < 1:
            raise ValueError(f"{self.name}: max_tokens must be at least 1")
        if self.min_tokens and not self.filler:
            raise ValueError(f"{self.name}: min_tokens needs a filler")

    def filled(self, count: int) -> GoldenPrompt:
        """The same case with `{filler}` replaced by `count` copies of the filler."""
        text = self.filler * count
        if self.prompt is not None:
            return msgspec.structs.replace(self, prompt=self.prompt.replace("{filler}", text))
        turns = tuple(
            ChatMessage(role=turn.role, content=turn.content.replace("{filler}", text)) for turn in self.messages or ()
        )
        return msgspec.structs.replace(self, messages=turns) if self.messages is not None else self


class ForcedSequence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A teacher-forced sequence of `length` seeded ids, whose logits are kept at every `stride`-th position."""

    name: str
    rows: tuple[str, ...]
    length: int
    stride: int
    seed: int = 0


class GoldenCaseList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a golden run is asked to do."""

    case: tuple[GoldenPrompt, ...]
    forced: tuple[ForcedSequence, ...] = ()


def load_cases(path: Path = DEFAULT_CASES) -> GoldenCaseList:
    """Read a case list from TOML.

    Raises:
        msgspec.ValidationError: A field is unknown, missing, contradictory or of the wrong type.
        ValueError: Two cases have the same name.
    """
    cases = msgspec.toml.decode(path.read_bytes(), type=GoldenCaseList)
    names = [entry.name for entry in cases.case] + [entry.name for entry in cases.forced]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: two cases are named {', '.join(twice)}")
    return cases
