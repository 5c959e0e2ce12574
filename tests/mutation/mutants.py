"""The mutants of a module, as cosmic-ray makes them: one small change each, with the whole text it leads to."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

# Unions in annotations are never evaluated.
_EXCLUDED = "core/ReplaceBinaryOperator_BitOr_"
_SHOWN = 200
_BEFORE = 60


@dataclass(frozen=True)
class Mutant:
    """One changed module: what changed where, the new text, and a key that holds as long as the module does."""

    key: str
    module: str
    operator: str
    line: int
    change: str
    text: str


def mutants_of(root: Path, module: str) -> Iterator[Mutant]:
    """Every mutant of a module of the project."""
    from cosmic_ray.commands.init import _all_work_items
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    original = (root / module).read_text(encoding="utf-8")
    for item in _all_work_items([root / module], {}):
        (spec,) = item.mutations
        if spec.operator_name.startswith(_EXCLUDED):
            continue
        operator = get_operator(spec.operator_name)(**spec.operator_args)
        try:
            text = mutate_code(original, operator, spec.occurrence)
        except AttributeError:
            # Of `except` with a dotted name cosmic-ray makes nothing.
            continue
        if text is None or text == original or not _compiles(text):
            continue
        key = hashlib.sha256(f"{module}\0{text}".encode()).hexdigest()[:16]
        yield Mutant(key, module, spec.operator_name, spec.start_pos[0], _change(original, text), text)


def write_mutants(mutants: list[Mutant], path: Path) -> None:
    """Keep mutants in a compressed file, for a machine that has no cosmic-ray."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(mutant)) + "\n" for mutant in mutants)


def read_mutants(path: Path) -> list[Mutant]:
    """Mutants that `write_mutants` kept."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [Mutant(**json.loads(line)) for line in file]


def _compiles(text: str) -> bool:
    """False where an operator took the star of a signature for a product: that is no program, and no test kills it."""
    try:
        compile(text, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _change(original: str, text: str) -> str:
    """The changed lines before and after; of long ones what stands around the change."""
    lines = list(difflib.unified_diff(original.splitlines(), text.splitlines(), n=0, lineterm=""))[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    if len(before) + len(after) <= _SHOWN:
        return f"{before} -> {after}"
    differs = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    start = max(0, differs - _BEFORE)
    return f"{before[start : start + _SHOWN // 2]} -> {after[start : start + _SHOWN // 2]}"
