"""All classes of the corpus, and where the official library departs from the written format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conformance.corpus.safetensors.classes import CorpusClass
from conformance.corpus.safetensors.malformed import MALFORMED
from conformance.corpus.safetensors.rules import Demand
from conformance.corpus.safetensors.valid import VALID

CLASSES: tuple[CorpusClass, ...] = (*VALID, *MALFORMED)
BY_NAME: dict[str, CorpusClass] = {found.name: found for found in CLASSES}


def of_row(row: str) -> tuple[CorpusClass, ...]:
    """The classes that a row of the catalogue is tried on."""
    return tuple(found for found in CLASSES if found.row == row)


@dataclass(frozen=True, slots=True)
class Difference:
    """A class on which the official library and the written format do not say the same."""

    name: str
    summary: str
    demand: Demand
    rule: str
    official: str
    note: str


def differences(classes: Iterable[CorpusClass] = CLASSES) -> list[Difference]:
    """Where the official library accepts what the format refuses, and what it does where the format is open."""
    return [
        Difference(
            found.name,
            found.summary,
            found.demand,
            str(found.rule),
            "accepts" if found.official_accepts else "rejects",
            found.note,
        )
        for found in classes
        if found.demand is Demand.EITHER or found.official_accepts == (found.demand is Demand.REJECT)
    ]
