"""Detectors for text that no model means to write; each is shown to fire by the tests."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PLACEHOLDERS = re.compile(
    r"\btoken_?\d+\b|\[\d{4,}\]|<0x[0-9A-Fa-f]{2}>|<\|[a-z_]+\|>|</?s>|<unk>|<pad>|\[PAD\d*\]|[\u0120\u010a\u0109]",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def garbage_in(text: str) -> list[str]:
    """Placeholders, byte-level markers, special tokens, control characters and U+FFFD found in generated text."""
    found = [match.group(0) for match in _PLACEHOLDERS.finditer(text)]
    found += [f"control character {ord(match.group(0)):#04x}" for match in _CONTROL.finditer(text)]
    found += ["U+FFFD"] * text.count("\ufffd")
    return found


def loop_period(ids: Sequence[int], *, repeats: int = 5, longest: int = 32) -> int | None:
    """The period of a loop at the end of the ids: the last `repeats` stretches of that length are the same."""
    for period in range(1, longest + 1):
        needed = period * repeats
        if len(ids) >= needed:
            tail = list(ids[-needed:])
            if all(tail[i] == tail[i % period] for i in range(needed)):
                return period
    return None
