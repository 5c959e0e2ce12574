"""The catalogue of 100 rows: what is claimed, in the specification's words, and what a check must observe."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Literal

import msgspec

from conformance.reported import Reported

CATALOGUE_PATH = Path(__file__).with_name("catalogue.toml")
NO_DEVICE = "no CUDA device"


class UnknownSelector(Reported):
    """A selector that matches no row; running nothing must never look green."""

    def __init__(self, selector: str, known: Iterable[str]) -> None:
        self.selector = selector
        super().__init__(f"{selector!r} matches no row; sections are {', '.join(known)}, ids look like F-MEM-029")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chapter of the checklist; `key` is the word inside its ids, in lower case."""

    key: str
    numeral: str
    title: str


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One falsification test. `test` and `criterion` are the specification's own words."""

    id: str
    section: str
    test: str
    criterion: str
    severity: Literal["FAIL", "WARNING"]
    needs: tuple[str, ...] = ()
    observes: tuple[str, ...] = ()
    observes_on_gpu: tuple[str, ...] = ()
    alone: bool = False
    why: str = ""

    @property
    def number(self) -> int:
        """1 to 100."""
        return int(self.id.rsplit("-", 1)[1])

    @property
    def function(self) -> str:
        """The name of its check: `test_f_mem_029`."""
        return "test_" + self.id.lower().replace("-", "_")

    @property
    def needs_cuda(self) -> bool:
        """True where nothing can be shown without an NVIDIA device."""
        return "cuda" in self.needs

    @property
    def on_device(self) -> bool:
        """True where its check uses the GPU of a trial that has one."""
        return self.section not in {"build", "parse", "err"} or self.alone

    @property
    def written(self) -> bool:
        """True where a check exists; such a row names what it observes."""
        return bool(self.observes)


class Catalogue(msgspec.Struct, frozen=True):
    """All sections and rows, in the specification's order, and the hash of the file they were read from."""

    sections: tuple[Section, ...]
    rows: tuple[Row, ...]
    sha256: str

    def row(self, row_id: str) -> Row:
        """The row with this id; KeyError if there is none."""
        for row in self.rows:
            if row.id == row_id:
                return row
        raise KeyError(row_id)

    def section(self, key: str) -> Section:
        """The section with this key; KeyError if there is none."""
        for section in self.sections:
            if section.key == key:
                return section
        raise KeyError(key)

    def select(self, words: Iterable[str], sections: Iterable[str]) -> tuple[Row, ...]:
        """Rows matched by any of the words (`f_mem`, `F-MEM-029`, `029`) or sections; all when none is given.

        Raises:
            UnknownSelector: one of them matches nothing.
        """
        words, sections = tuple(words), tuple(sections)
        if not words and not sections:
            return self.rows
        chosen: set[str] = set()
        for word in words:
            chosen |= self._matched(word, partial(_in_id, _plain(word)))
        for key in sections:
            chosen |= self._matched(key, partial(_in_section, key.lower()))
        return tuple(row for row in self.rows if row.id in chosen)

    def _matched(self, selector: str, match: Callable[[Row], bool]) -> set[str]:
        found = {row.id for row in self.rows if match(row)} if selector else set[str]()
        if not found:
            raise UnknownSelector(selector, [section.key for section in self.sections])
        return found


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    section: tuple[Section, ...]
    row: tuple[Row, ...]


def _plain(text: str) -> str:
    return text.lower().replace("-", "_").removeprefix("test_")


def _in_id(word: str, row: Row) -> bool:
    return word in _plain(row.id)


def _in_section(key: str, row: Row) -> bool:
    return row.section == key


@cache
def load_catalogue(path: Path = CATALOGUE_PATH) -> Catalogue:
    """Read and validate the catalogue file."""
    raw = path.read_bytes()
    file = msgspec.convert(tomllib.loads(raw.decode()), _File)
    return Catalogue(file.section, file.row, hashlib.sha256(raw).hexdigest())
