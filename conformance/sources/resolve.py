"""Resolves an engine's roles inside its own environment. Run as a script there; it imports nothing of ours.

Reads a JSON object of role -> "module:attribute.path" from its argument and prints one JSON object of role ->
what was found. Whatever an import raises is an answer, not a crash.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from typing import Any


def resolve(target: str) -> dict[str, Any]:
    """What `module:attribute.path` is: kind, qualified name, file, and parameters if it can be called."""
    module_name, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (Exception, SystemExit) as error:  # noqa: BLE001  what its import raises is the finding
        return {"found": False, "error": f"{type(error).__name__}: {error}"}
    return {
        "found": True,
        "kind": "class" if inspect.isclass(found) else "function" if callable(found) else "value",
        "name": f"{getattr(found, '__module__', module_name)}.{getattr(found, '__qualname__', path)}",
        "file": _file(found, module_name),
        "parameters": _parameters(found),
    }


def _file(found: Any, module_name: str) -> str:
    try:
        return inspect.getfile(found)
    except TypeError:
        return getattr(sys.modules[module_name], "__file__", "") or ""


def _parameters(found: Any) -> list[str]:
    if not callable(found):
        return []
    try:
        return list(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return []


if __name__ == "__main__":
    sys.stdout.write(json.dumps({role: resolve(target) for role, target in json.loads(sys.argv[1]).items()}))
