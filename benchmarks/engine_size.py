"""Honest lines of the engine: lines with code on them, without blank lines, comments and docstrings.

    python benchmarks/engine_size.py

Counts `reference_engine/*.py`; the folders below it (kernels, foreign formats) are counted apart.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

ENGINE = Path(__file__).parents[1] / "reference_engine"
SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """Lines that hold a part of a statement which is not a docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines.difference_update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(lines)


def main() -> None:
    """Print files by size, and sums by folder."""
    sums: dict[str, int] = {}
    for path in sorted(ENGINE.rglob("*.py")):
        count = code_lines(path.read_text(encoding="utf-8"))
        folder = str(path.parent.relative_to(ENGINE.parent))
        sums[folder] = sums.get(folder, 0) + count
        print(f"{count:6} {path.relative_to(ENGINE.parent)}")
    for folder, count in sums.items():
        print(f"{count:6} in {folder}")


if __name__ == "__main__":
    main()
