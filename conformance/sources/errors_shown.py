"""Builds every error type of an engine and shows it. Run as a script in the engine's environment.

Takes `module:BaseError` and prints a JSON object: for each type below the base, whether it could be built, whether
its text says something beyond its name, and which of the field values given to it are missing from the text.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any


def all_types(base: type) -> list[type]:
    """The base's subclasses, however deep, that are defined anywhere in its package."""
    found: list[type] = []
    children: list[type] = type.__subclasses__(base)
    for child in children:
        found += [child, *all_types(child)]
    return found


def sample(name: str, annotation: str, position: int) -> Any:
    """A value of the parameter's type that can be recognised in a text."""
    number = 4711 + position
    if any(word in annotation for word in ("list", "Sequence", "tuple", "Iterable")):
        return [number] if "int" in annotation else [f"{name}-{number}"]
    for word, value in (("Path", Path(f"/given/{name}-{number}")), ("int", number), ("float", float(number))):
        if word in annotation and "str" not in annotation:
            return value
    return f"{name}-{number}"


def show(kind: type) -> dict[str, Any]:
    """Build one error from its own signature and look at its text."""
    parameters = _parameters(kind)
    wanted = [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    given = {p.name: sample(p.name, str(p.annotation), i) for i, p in enumerate(wanted)}
    positional = [given[p.name] for p in wanted if p.kind is not p.KEYWORD_ONLY]
    named = {p.name: given[p.name] for p in wanted if p.kind is p.KEYWORD_ONLY}
    try:
        text = str(kind(*positional, **named))
    except Exception as error:  # noqa: BLE001  whatever it raises is the finding
        return {"error": f"{type(error).__name__}: {error}"}
    lost = [name for name, value in given.items() if not _told(value, text)]
    return {"text": text, "says_something": bool(text.strip()) and text.strip() != kind.__name__, "lost": lost}


def _parameters(kind: type) -> list[inspect.Parameter]:
    """Those of its constructor; one that it leaves to Python's exceptions takes a message."""
    try:
        return list(inspect.signature(kind).parameters.values())
    except ValueError:
        return [inspect.Parameter("message", inspect.Parameter.POSITIONAL_ONLY)]


def _told(value: Any, text: str) -> bool:
    if isinstance(value, list):
        return all(_told(one, text) for one in value)
    spellings = {str(value)}
    if isinstance(value, int | float):
        spellings |= {f"{value:g}", f"{value:,}"}
    return any(spelling in text for spelling in spellings)


def main(target: str) -> dict[str, dict[str, Any]]:
    """All error types below `module:BaseError`, shown."""
    module_name, _, base_name = target.partition(":")
    base = getattr(importlib.import_module(module_name), base_name)
    return {kind.__qualname__: show(kind) for kind in all_types(base)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
