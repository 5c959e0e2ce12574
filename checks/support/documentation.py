"""Built documentation against the sources: every public name must have its place on a page."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from conformance.manifest import CommandTable
from conformance.trial.stand import NotTried, Stand

_ANCHOR = re.compile(r"""<[a-z][^<>]*?\s(?:id|name)=["']([^"'<>]+)["']""")
_WARNING = re.compile(r"\bwarn(?:ing)?\b", re.IGNORECASE)
_MAX_PAGE_BYTES = 64 << 20
_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def require_tool(table: CommandTable) -> None:
    """See that the tool that a command starts is there, a module of this Python or a program on the path.

    Raises:
        NotTried: it is not.
    """
    if table.command[:2] == ["{python}", "-m"]:
        tool, there = table.command[2], find_spec(table.command[2]) is not None
    else:
        tool, there = table.command[0], shutil.which(table.command[0]) is not None
    if not there:
        raise NotTried(f"{tool} is not installed")


def warnings_in(output: str) -> list[str]:
    """Lines of a tool's output that warn."""
    return [line.strip() for line in output.splitlines() if _WARNING.search(line)]


def engine_packages(stand: Stand) -> list[str]:
    """The top-level packages that hold the engine's roles.

    Raises:
        NotTried: the engine is not written in Python, or its manifest names no role.
    """
    if stand.manifest.manifest.engine.language != "python":
        raise NotTried("public items are found by Python's syntax, in which this engine is not written")
    packages = {target.partition(":")[0].partition(".")[0] for target in stand.manifest.manifest.roles.values()}
    if not packages:
        raise NotTried("the manifest names no roles, so nothing says which packages are the engine")
    return sorted(packages)


def public_items(copy: Path, packages: list[str]) -> list[str]:
    """Dotted names of all classes, functions and methods whose path has no underscore in front."""
    return sorted(
        name
        for package in packages
        for file in (copy / package).rglob("*.py")
        for name in _defined(_module(file.relative_to(copy)), ast.parse(file.read_bytes()))
        if not any(part.startswith("_") for part in name.split("."))
    )


def _module(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _defined(prefix: str, node: ast.Module | ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, _Definition):
            yield f"{prefix}.{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from _defined(f"{prefix}.{child.name}", child)


def documented_items(site: Path) -> set[str]:
    """Dotted names that a page has an anchor for: the anchor's own name, and below the page's path."""
    found: set[str] = set()
    for page in sorted(site.rglob("*.html")):
        with page.open("rb") as file:
            anchors = _ANCHOR.findall(file.read(_MAX_PAGE_BYTES).decode("utf-8", "replace"))
        module = _module(page.relative_to(site))
        found |= {*anchors, *(f"{module}.{anchor}" for anchor in anchors)}
    return found
