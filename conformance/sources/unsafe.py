"""Finds unsafe constructs without a `SAFETY:` comment, by tokens and syntax, never by grep.

Python: what leaves memory safety behind — ctypes, raw pointers, buffers over foreign memory, kernel launches.
Rust: the keyword `unsafe` outside strings, characters and comments. A comment counts for the statement it stands
on or directly above; one comment far above covers nothing.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import msgspec

_CALLS = {"frombuffer", "from_address", "from_blob", "from_dlpack", "data_ptr", "as_strided", "cudart"}
_CALLS |= {"CDLL", "PyDLL", "as_array", "string_at", "memmove"}
_CALLS_OF_CTYPES = {"from_buffer", "from_param"}
_MODULES = {"ctypes", "cffi"}
_KERNEL_MODULES = {"triton", "cupy", "numba"}
_NOT_KERNELS = {"list", "dict", "set", "tuple", "frozenset", "type", "deque", "defaultdict"}
_SAFETY = "SAFETY:"
_RUST_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*)|(?P<raw>\bb?r(?P<hashes>\#*)")|(?P<string>b?"(?:\\.|[^"\\])*")"""
    r"""|(?P<char>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^'\\])')|(?P<word>[A-Za-z_]\w*)|(?P<newline>\n)""",
    re.DOTALL | re.VERBOSE,
)


class Unsafe(msgspec.Struct, frozen=True):
    """One unsafe construct: where it stands, what it is, and whether a SAFETY comment explains it."""

    line: int
    what: str
    explained: bool


def scan_python(source: str) -> list[Unsafe]:
    """All unsafe constructs of a Python source.

    Raises:
        SyntaxError: it does not parse.
    """
    tree = ast.parse(source)
    comments = _python_comments(source)
    found = sorted(set(_python_unsafe(tree)))
    statements = {child: node for node in ast.walk(tree) if isinstance(node, ast.stmt) for child in _lines(node)}
    return [Unsafe(line, what, _explained(line, statements.get(line, line), comments)) for line, what in found]


def _lines(statement: ast.stmt) -> range:
    """Lines of a simple statement, or of a compound one's head."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if isinstance(body, list) and body else statement.end_lineno or statement.lineno
    return range(statement.lineno, max(last, statement.lineno) + 1)


def _python_comments(source: str) -> dict[int, tuple[str, bool]]:
    """Comment text by line, and whether the comment stands alone on it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: (token.string, token.line[: token.start[1]].strip() == "")
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _python_unsafe(tree: ast.Module) -> Iterator[tuple[int, str]]:
    imported = _imported(tree)
    launches = bool(imported & _KERNEL_MODULES)
    calls = _CALLS | (_CALLS_OF_CTYPES if imported & _MODULES else set())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _called(node.func)) in calls:
            yield node.lineno, f"call of {name}"
        elif isinstance(node, ast.Call) and launches and _is_launch(node.func):
            yield node.lineno, "kernel launch"
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, f"import of {a.name}") for a in node.names if a.name.split(".")[0] in _MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _MODULES:
            yield node.lineno, f"import from {node.module}"


def _imported(tree: ast.Module) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def _is_launch(function: ast.expr) -> bool:
    """True for `kernel[grid](…)`; a generic alias such as `set[str]()` is none."""
    return isinstance(function, ast.Subscript) and _called(function.value) not in _NOT_KERNELS


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _explained(line: int, statement: ast.stmt | int, comments: dict[int, tuple[str, bool]]) -> bool:
    first = statement if isinstance(statement, int) else statement.lineno
    last = first if isinstance(statement, int) else max(_lines(statement))
    if any(_SAFETY in comments[at][0] for at in range(min(first, line), max(last, line) + 1) if at in comments):
        return True
    above = min(first, line) - 1
    while above in comments and comments[above][1]:
        if _SAFETY in comments[above][0]:
            return True
        above -= 1
    return False


def scan_rust(source: str) -> list[Unsafe]:
    """All uses of the keyword `unsafe` in a Rust source."""
    comments: dict[int, tuple[str, bool]] = {}
    found: list[int] = []
    line = 1
    lines = source.split("\n")
    position = 0
    while match := _RUST_TOKEN.search(source, position):
        line += source.count("\n", position, match.start())
        end = _rust_end(source, match)
        text = source[match.start() : end]
        if match.group("comment"):
            alone = source[source.rfind("\n", 0, match.start()) + 1 : match.start()].strip() == ""
            for offset, piece in enumerate(text.split("\n")):
                comments[line + offset] = (piece, alone)
        elif match.group("word") == "unsafe":
            found.append(line)
        line += text.count("\n")
        position = end
    attributes = {number for number, text in enumerate(lines, start=1) if text.strip().startswith("#[")}
    return [Unsafe(at, "unsafe", _explained(_above_attributes(at, attributes), at, comments)) for at in found]


def _above_attributes(line: int, attributes: set[int]) -> int:
    """The first line of the attributes that stand directly above, so that a comment may precede them."""
    while line - 1 in attributes:
        line -= 1
    return line


def _rust_end(source: str, match: re.Match[str]) -> int:
    """Where a token ends; block comments nest and raw strings end with their own hashes."""
    if match.group("raw"):
        closing = source.find('"' + match.group("hashes"), match.end())
        return len(source) if closing < 0 else closing + 1 + len(match.group("hashes"))
    if match.group("comment") != "/*":
        return match.end()
    depth, position = 1, match.end()
    while depth and position < len(source):
        opening, closing = source.find("/*", position), source.find("*/", position)
        if closing < 0:
            return len(source)
        nested = 0 <= opening < closing
        depth += 1 if nested else -1
        position = (opening if nested else closing) + 2
    return position
