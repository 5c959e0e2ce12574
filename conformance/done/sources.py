"""What the project's own texts say: markers of debt in its sources, GPU examples in its pages, changelog entries."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = {".py", ".toml", ".jinja", ".css", ".js", ".c", ".rs", ".sh", ".yml"}
FOLDERS = ("conformance", "reference_engine", "checks", "reports", "tests", "benchmarks", "docs/examples", ".")
_MARKER = re.compile(r"\b(?:TODO|FIXME|HACK)\b")
_FENCE = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_GPU = re.compile(r"(?:^|\s)--gpu(?:\s|$)")


def markers(root: Path) -> Iterator[str]:
    """Each marker of debt in a comment, as `file:line: text`; in files that are not Python, anywhere."""
    for path in _sources(root):
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = _comments(text) if path.suffix == ".py" else enumerate(text.splitlines(), start=1)
        for number, line in lines:
            if _MARKER.search(line):
                yield f"{path.relative_to(root).as_posix()}:{number}: {line.strip()}"


def _sources(root: Path) -> list[Path]:
    """The source files of the project; below the root itself only those that lie there."""
    found = {path for folder in FOLDERS[:-1] for path in (root / folder).rglob("*")} | set(root.glob("*"))
    return sorted(path for path in found if path.is_file() and path.suffix in SUFFIXES)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    yield from ((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)


def gpu_examples(pages: list[Path]) -> Iterator[str]:
    """Each command in a shell block that asks for the GPU, as `page: command`."""
    files = [file for page in pages for file in (sorted(page.rglob("*.md")) if page.is_dir() else [page])]
    for file in files:
        for block in _FENCE.findall(file.read_text(encoding="utf-8")):
            yield from (f"{file.as_posix()}: {line.strip()}" for line in block.splitlines() if _GPU.search(line))


def entries(changelog: str, version: str) -> list[str]:
    """The entries of a version, or of what is not released yet."""
    for heading, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL):
        if heading.startswith(("Unreleased", "[Unreleased", version, f"[{version}")):
            return re.findall(r"^- .+$", body, re.MULTILINE)
    return []
