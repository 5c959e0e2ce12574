"""The hook of `mkdocs.yml`: links that leave docs/ lead to a page of the file itself, so the site stands alone.

A page of docs/ may link to any file of the project, as a forge shows it. In the site each such file becomes a page
below `source/`, with the text as it is, and the links are turned to it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

SOURCE = "source"
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_LANGUAGE = {".py": "python", ".toml": "toml", ".rs": "rust", ".c": "c", ".yml": "yaml", ".json": "json"}


class OutsideTheProject(Exception):
    """A page links to a path that is not in the project."""

    def __init__(self, page: str, target: str) -> None:
        self.page, self.target = page, target
        super().__init__(f"{page}: {target} leads to nothing in the project")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for every file of the project that a page links to, and for those that these link to."""
    from mkdocs.structure.files import File  # noqa: PLC0415  only a build of the site has mkdocs

    docs = Path(config.docs_dir)
    texts = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for uri, text in source_pages(texts, docs.parent, docs.name).items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn the links of a page that leave docs/ to the pages of those files."""
    docs = Path(config.docs_dir)
    return turned(markdown, page.file.src_uri, docs.parent, docs.name)


def source_pages(texts: dict[str, str], root: Path, docs: str) -> dict[str, str]:
    """The pages of all files outside docs/ that these pages lead to, by their place in the site.

    Args:
        texts: Markdown by place in the site.
        root: The project.
        docs: The name of its documentation's folder.

    Raises:
        OutsideTheProject: a link leads to nothing.
    """
    made: dict[str, str] = {}
    waiting = dict(texts)
    while waiting:
        uri, text = waiting.popitem()
        for path in _linked(text, uri, root, docs):
            place = _place(path, root, docs)
            if place.startswith(f"{SOURCE}/") and place not in made:
                made[place] = _page_of(path, root)
                if path.suffix == ".md":
                    waiting[place] = made[place]
    return made


def turned(text: str, uri: str, root: Path, docs: str) -> str:
    """A page's text with each link as the site has it; a page of code stays as it is."""
    if uri.startswith(f"{SOURCE}/") and not (root / uri.removeprefix(f"{SOURCE}/")).is_file():
        return text

    def replaced(match: re.Match[str]) -> str:
        if _leaves_the_site(match["target"]):
            return match[0]
        place = _place(_path(match["target"], uri, root, docs), root, docs)
        return f"]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{match['anchor'] or ''})"

    return _outside_fences(text, lambda piece: _LINK.sub(replaced, piece))


def _linked(text: str, uri: str, root: Path, docs: str) -> Iterator[Path]:
    for piece in _FENCE.split(text)[::2]:
        for match in _LINK.finditer(piece):
            if not _leaves_the_site(match["target"]):
                yield _path(match["target"], uri, root, docs)


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    pieces: Iterable[str] = _FENCE.split(text)
    return "".join(piece if index % 2 else change(piece) for index, piece in enumerate(pieces))


def _leaves_the_site(target: str) -> bool:
    return "://" in target or target.startswith("mailto:")


def _path(target: str, uri: str, root: Path, docs: str) -> Path:
    """The file that a link of a page means; pages below `source/` link from where their file lies."""
    parts = PurePosixPath(uri).parts
    folder = root.joinpath(*parts[1:-1]) if parts[0] == SOURCE else root / docs / Path(*parts[:-1])
    path = Path(posixpath.normpath((folder / target).as_posix()))
    if not path.is_relative_to(root) or not path.exists():
        raise OutsideTheProject(uri, target)
    return path


def _place(path: Path, root: Path, docs: str) -> str:
    """Where the site has a file: a page of docs/ under its own name, another below `source/`."""
    inside = path.relative_to(root)
    if inside.parts[:1] == (docs,) and _is_of_the_site(path):
        return Path(*inside.parts[1:]).as_posix()
    name = f"{SOURCE}/{inside.as_posix()}"
    return name if path.suffix == ".md" else f"{name}.md"


def _is_of_the_site(path: Path) -> bool:
    return path.is_file() and path.suffix in {".md", ".png", ".html"}


def _page_of(path: Path, root: Path) -> str:
    """A file as a page: Markdown as it is, a folder as its list, anything else as code."""
    title = path.relative_to(root).as_posix()
    if path.is_dir():
        names = sorted(f"{child.name}/" if child.is_dir() else child.name for child in path.iterdir())
        return f"# {title}/\n\n" + "\n".join(f"- `{name}`" for name in names if not name.startswith(("_", ".")))
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".md":
        return text
    return f"# {title}\n\n````{_LANGUAGE.get(path.suffix, 'text')}\n{text.rstrip()}\n````\n"
