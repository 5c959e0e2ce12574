"""The corpus as files with `verdicts.json`, for engines in any language and without Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from conformance.corpus.safetensors.classes import CorpusClass, RandomSource, changed_ranges, sha256
from conformance.corpus.safetensors.keep import ContentsSummary, summarise
from conformance.corpus.safetensors.registry import CLASSES
from conformance.corpus.safetensors.rules import Demand
from conformance.reported import Reported

VERDICTS = "verdicts.json"
_ATTEMPTS = 40


class NotEmpty(Reported):
    """The directory for an export holds files already."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(f"{directory} is not empty; a corpus is exported into an empty directory")


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file and what the format demands of a reader.

    `readings` are the contents that an accepting reader may report; none are given where acceptance is wrong, or
    where the format leaves open what is read. `changed` are byte ranges [begin, end) that differ from the control.
    """

    file: str
    case_class: str
    row: str
    summary: str
    demand: Demand
    rule: str
    official: str
    sha256: str
    bytes: int
    control: str
    changed: list[tuple[int, int]]
    readings: list[ContentsSummary] = []


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A plain valid file that must load before the files that name it say anything."""

    file: str
    sha256: str
    bytes: int
    contents: ContentsSummary


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """The table of an exported corpus. Offsets are relative to the byte buffer, hashes are of tensors' bytes."""

    version: int
    seed: int
    files: list[Verdict]
    controls: list[Control]


def export(directory: Path, seed: int = 0, *, examples: int = 3, classes: Iterable[CorpusClass] = CLASSES) -> Verdicts:
    """Write `examples` distinct files of every class, their controls and `verdicts.json`.

    Raises:
        NotEmpty: The directory holds files already.
    """
    if directory.exists() and any(directory.iterdir()):
        raise NotEmpty(directory)
    (directory / "controls").mkdir(parents=True)
    files: list[Verdict] = []
    controls: dict[str, Control] = {}
    for corpus_class in classes:
        (directory / corpus_class.family).mkdir(exist_ok=True)
        files += _export_class(directory, corpus_class, seed, examples, controls)
    verdicts = Verdicts(version=1, seed=seed, files=files, controls=list(controls.values()))
    table = msgspec.json.format(msgspec.json.encode(verdicts), indent=1)
    (directory / VERDICTS).write_bytes(table + b"\n")
    return verdicts


def _export_class(
    directory: Path, corpus_class: CorpusClass, seed: int, examples: int, controls: dict[str, Control]
) -> list[Verdict]:
    found: dict[str, Verdict] = {}
    for attempt in range(_ATTEMPTS * examples):
        if len(found) == examples:
            break
        case = corpus_class.build(RandomSource(f"{seed}/{corpus_class.name}/{attempt}"))
        digest = sha256(case.data)
        if digest in found:
            continue
        control = f"controls/{sha256(case.control)[:20]}.safetensors"
        if control not in controls:
            (directory / control).write_bytes(case.control)
            controls[control] = Control(
                file=control,
                sha256=sha256(case.control),
                bytes=len(case.control),
                contents=summarise(case.control_contents),
            )
        name = corpus_class.name.partition(".")[2]
        file = f"{corpus_class.family}/{name}-{len(found) + 1}.safetensors"
        (directory / file).write_bytes(case.data)
        found[digest] = Verdict(
            file=file,
            case_class=corpus_class.name,
            row=corpus_class.row,
            summary=corpus_class.summary,
            demand=corpus_class.demand,
            rule=str(corpus_class.rule),
            official="accepts" if corpus_class.official_accepts else "rejects",
            sha256=digest,
            bytes=len(case.data),
            control=control,
            changed=list(changed_ranges(case.control, case.data)),
            readings=[summarise(reading) for reading in case.readings or ()],
        )
    return list(found.values())
