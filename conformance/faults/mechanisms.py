"""Mechanisms of faults that really happened, and which planted faults are each."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import msgspec


class Mechanism(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way in which engines were wrong, where that was seen, and the planted faults that repeat it."""

    what: str
    seen_in: str
    faults: list[str]


@functools.cache
def load_mechanisms() -> dict[int, Mechanism]:
    """All mechanisms by their number."""
    raw = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {int(number): msgspec.convert(found, Mechanism) for number, found in raw.items()}
