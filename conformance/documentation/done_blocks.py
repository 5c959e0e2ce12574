"""The gates of the definition of done, and the committed panel of the reference engine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from conformance.documentation.markdown import code, table
from conformance.done.gates import DoneLine, load_gates

PANEL = Path("docs") / "results" / "done.json"


def gates() -> str:
    """Each gate with the specification's words."""
    lines = [
        [
            code(gate.key),
            gate.clause,
            f"{gate.relation} {gate.threshold:g} {gate.unit}",
            "blocks" if gate.enforcement == "merge" else "warns",
            ", ".join(gate.languages) or "every engine",
            gate.says,
        ]
        for gate in load_gates()
    ]
    return table(["gate", "section", "threshold", "beyond it", "asked of", "the specification's words"], lines)


def panel(root: Path) -> str:
    """What `falsify done` said last, as it was committed; plainly that there is nothing where there is nothing."""
    path = root / PANEL
    if not path.is_file():
        return "No panel is committed with this version."
    found = msgspec.json.decode(path.read_bytes(), type=list[DoneLine])
    lines = [
        [
            line.name,
            f"**{line.verdict}**",
            "" if line.value is None else f"{line.value:.6g}",
            line.threshold,
            code(line.command),
            line.reason,
        ]
        for line in found
    ]
    return table(["gate", "verdict", "value", "threshold", "command", "reason"], lines)
