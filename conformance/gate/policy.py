"""The gate file: which rows may be untested and why, which failures are known, until when, and what is required.

An entry that matches nothing is an error: a gate file that nobody tends would excuse what nobody looks at.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from conformance.catalogue import Catalogue
from conformance.reported import Reported


class BrokenGate(Reported):
    """A gate file that cannot be applied; the message says which entry and why."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}")


class AllowedUntested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row that may be UNTESTED, for the record's `reason` alone (or one that begins with it), and why that is so."""

    row: str
    reason: str
    why: str

    def covers(self, reason: str) -> bool:
        """True for the reason itself and for one that continues it after punctuation or a space."""
        return reason == self.reason or reason.startswith(tuple(f"{self.reason}{mark}" for mark in ":;, "))


class KnownFailure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row that may fail until `expires` (that day included), in the named observations and in no other."""

    row: str
    observations: tuple[str, ...]
    reason: str
    issue: str
    expires: date

    def covers(self, names: set[str]) -> bool:
        """True if every failing observation is a named one, or a variant of it (`ids/hello` of `ids`)."""
        return bool(names) and all(
            name in self.observations or name.split("/")[0] in self.observations for name in names
        )


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gate file says; without one, nothing is excused and a warning passes."""

    warnings: Literal["pass", "fail"] = "pass"
    require_gpu: bool = False
    required: tuple[str, ...] = ()
    untested: tuple[AllowedUntested, ...] = ()
    known_failure: tuple[KnownFailure, ...] = ()


def load_policy(path: Path, catalogue: Catalogue) -> Policy:
    """Read and validate a gate file.

    Raises:
        BrokenGate: it is not TOML, has unknown keys, or an entry that can match nothing or excuse anything.
        OSError: it cannot be read.
    """
    try:
        policy = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Policy)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BrokenGate(path, str(error)) from error
    for cause in _faults(policy, catalogue):
        raise BrokenGate(path, cause)
    return policy


def _faults(policy: Policy, catalogue: Catalogue) -> Iterator[str]:
    known = {row.id for row in catalogue.rows}
    named = [*policy.required, *(e.row for e in policy.untested), *(e.row for e in policy.known_failure)]
    yield from (f"{row!r} matches no row of the catalogue" for row in named if row not in known)
    yield from (f"{row} is named twice" for row, count in Counter(named).items() if count > 1)
    for allowed in policy.untested:
        if not (_says_something(allowed.reason) and _says_something(allowed.why)):
            yield f"{allowed.row}: an untested row needs the record's `reason` and a `why`"
    for failure in policy.known_failure:
        yield from _faults_of(failure, catalogue)


def _says_something(text: str) -> bool:
    """Whether there is a letter or a digit in it; blanks that are none and signs of no width say nothing."""
    return any(map(str.isalnum, text))


def _faults_of(failure: KnownFailure, catalogue: Catalogue) -> Iterator[str]:
    if not _says_something(failure.reason):
        yield f"{failure.row}: a known failure needs a `reason`"
    link = urlsplit(failure.issue)
    if link.scheme not in {"http", "https"} or not link.netloc:
        yield f"{failure.row}: `issue` must be a link, not {failure.issue!r}"
    if not failure.observations:
        yield f"{failure.row}: a known failure needs the `observations` that fail"
    row = next((row for row in catalogue.rows if row.id == failure.row), None)
    possible = {*row.observes, *row.observes_on_gpu, "engine"} if row else set()
    for name in failure.observations:
        if row and name.split("/")[0] not in possible:
            yield f"{failure.row}: {name!r} matches no observation; there are {', '.join(sorted(possible))}"
