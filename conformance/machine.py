"""What of an environment stays the same on a machine: timings of two records compare only where it does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

_PASSING = {"load_average", "used_bytes", "processes", "sm_clock_mhz", "memory_clock_mhz"}
_DIGITS = 12


def flattened(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment as dotted names with their values as text, sorted."""
    return sorted(_flatten(environment))


def lasting(environment: Mapping[str, Any]) -> dict[str, str]:
    """The same without what changes from moment to moment: load, memory in use, processes, clocks."""
    return {name: value for name, value in flattened(environment) if not _PASSING & {*name.split(".")}}


def machine_hash(environment: Mapping[str, Any]) -> str:
    """A short hash of what lasts."""
    return hashlib.sha256(msgspec.json.encode(list(lasting(environment).items()))).hexdigest()[:_DIGITS]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of what lasts and is not the same in both."""
    ours, theirs = lasting(one), lasting(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _flatten(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            yield from _flatten(member, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(member, dict) for member in value):
        for index, member in enumerate(value):
            yield from _flatten(member, f"{name}.{index}")
    else:
        yield name, value if isinstance(value, str) else msgspec.json.encode(value).decode()
