"""The mutation score of what decides verdicts, from the committed results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from conformance.documentation.markdown import code, table

RESULTS = Path("docs") / "results" / "mutation.json"
NOTHING = "Nothing is committed with this version."


class Survivor(msgspec.Struct, frozen=True):
    """A mutant that no test killed; `why` is empty where nobody said what it could not change."""

    line: int
    change: str
    why: str = ""


class Module(msgspec.Struct, frozen=True):
    """What became of a module's mutants; of `broken` ones nothing could be run."""

    mutants: int
    killed: int
    survived: int
    broken: int
    survivors: list[Survivor]


class Results(msgspec.Struct, frozen=True):
    """All modules by their path."""

    modules: dict[str, Module]


def score(root: Path) -> str:
    """Each module's mutants and the share that tests killed of those that could run, and that of all together."""
    modules = _read(root)
    if modules is None:
        return NOTHING
    lines = [_line(code(name), [module]) for name, module in modules.items()]
    lines.append(_line("all", list(modules.values())))
    return table(["module", "mutants", "broken", "killed", "survived", "of these unexplained", "score"], lines)


def survivors(root: Path) -> str:
    """Why mutants survive, each reason with how many, and one by one those for which there is none."""
    modules = _read(root)
    if modules is None:
        return NOTHING
    alive = [(name, survivor) for name, module in modules.items() for survivor in module.survivors]
    reasons = Counter((name, survivor.why) for name, survivor in alive if survivor.why)
    explained = table(
        ["module", "survivors", "why no test should kill them"],
        ([code(name), str(count), why] for (name, why), count in sorted(reasons.items())),
    )
    gaps = [
        [f"{code(name)}, line {each.line}", code(each.change.replace("`", "'"))] for name, each in alive if not each.why
    ]
    return f"{explained}\n\n{table(['unexplained', 'change'], gaps) if gaps else 'None is unexplained.'}"


def _read(root: Path) -> dict[str, Module] | None:
    path = root / RESULTS
    return msgspec.json.decode(path.read_bytes(), type=Results).modules if path.is_file() else None


def _line(name: str, modules: list[Module]) -> list[str]:
    killed, survived = sum(each.killed for each in modules), sum(each.survived for each in modules)
    unexplained = sum(not survivor.why for each in modules for survivor in each.survivors)
    return [
        name,
        str(sum(each.mutants for each in modules)),
        str(sum(each.broken for each in modules)),
        str(killed),
        str(survived),
        str(unexplained),
        f"{killed / (killed + survived):.1%}" if killed + survived else "",
    ]
