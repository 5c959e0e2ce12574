"""The kill matrix of `falsify severity` on the page: which planted fault each check was seen to fail of.

Nothing is believed further than it speaks: a fault that was not seen for what it is proves no check, and a check that
only failed in rehearsal is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from markupsafe import Markup

from conformance.catalogue import Catalogue
from reports.extra import Extra, row_link, table
from reports.tables import read_table
from reports.text import listed, one_line, plural

_TITLE, _ANCHOR = "Can these checks fail?", "kills"
_WORDS, _MOST_ROWS = 160, 12


class Kill(msgspec.Struct, frozen=True):
    """A check that failed of a fault: in which observation, and how (falsified, warning, or in rehearsal)."""

    row: str
    observation: str = ""
    how: str = ""

    @property
    def rehearsed(self) -> bool:
        """True where only the CPU path was seen to fail."""
        return self.how.startswith("rehearsed")


class Planted(msgspec.Struct, frozen=True):
    """One planted fault: the checks that must fail of it, those that did, and others that changed with it.

    `specific` is what `falsify severity` judged: the fault ran, was seen where it must be, and disturbed nothing else.
    """

    fault: str
    area: str = ""
    what: str = ""
    seen_in: str = ""
    machine: str = ""
    expected: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    killed_by: tuple[Kill, ...] = ()
    collateral: tuple[str, ...] = ()
    specific: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def proofs(self) -> tuple[Kill, ...]:
        """The kills that prove a check: of an expected row, by a fault that was seen for what it is."""
        return tuple(kill for kill in self.killed_by if self.specific and kill.row in self.expected)


class Part(msgspec.Struct, frozen=True):
    """What one machine contributed: the healthy engine on every row it could try, as the negative control."""

    machine: str
    devices: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ()
    healthy: dict[str, str] = {}
    false_alarms: tuple[str, ...] = ()


class Severity(msgspec.Struct, frozen=True):
    """A severity.json."""

    faults: tuple[Planted, ...]
    parts: tuple[Part, ...] = ()

    def killers(self) -> dict[str, tuple[str, ...]]:
        """The faults that each check was seen to fail of, by check."""
        found: dict[str, list[str]] = {}
        for planted in self.faults:
            for kill in planted.proofs:
                found.setdefault(kill.row, []).append(planted.fault)
        return {row: tuple(dict.fromkeys(names)) for row, names in found.items()}


def read_severity(path: Path) -> Severity:
    """Read what `falsify severity` left.

    Raises:
        BrokenTable: it is something else.
        OSError: it cannot be read.
    """
    return read_table(path, Severity)


def kill_section(severity: Severity | None, catalogue: Catalogue) -> Extra:
    """The section "Can these checks fail?": how many are proven, the healthy engine's control, and the matrix."""
    if severity is None:
        nothing = Markup("<p>Not measured: no table of planted faults was given to this page.</p>")
        return Extra(_ANCHOR, _TITLE, nothing)
    ids = [row.id for row in catalogue.rows]
    body = [_proven(severity, ids), *map(_control, severity.parts), *_unseen(severity), _matrix(severity, ids)]
    return Extra(_ANCHOR, _TITLE, Markup("\n").join(body))


def _proven(severity: Severity, ids: Sequence[str]) -> Markup:
    proofs = [kill for planted in severity.faults for kill in planted.proofs]
    proven = {kill.row for kill in proofs} & set(ids)
    on_cpu = proven - {kill.row for kill in proofs if not kill.rehearsed}
    seen = sum(planted.specific for planted in severity.faults)
    told = Markup("<p><b>{} of {} checks proven able to fail</b>{}. Of {}, {} seen for what they are.</p>").format(
        len(proven),
        len(ids),
        f", {len(on_cpu)} of them only in rehearsal on the CPU" if on_cpu else "",
        plural(len(severity.faults), "planted fault"),
        plural(seen, "was", "were"),
    )
    without = [row for row in ids if row not in proven]
    if without:
        told += Markup("<details><summary>{} not seen to fail of any fault</summary><p>{}</p></details>"
                       ).format(plural(len(without), "check"), Markup(", ").join(map(row_link, without)))  # fmt: skip
    return told


def _control(part: Part) -> Markup:
    alarms = listed([one_line(row, 20) for row in part.false_alarms])
    words = Markup('<strong class="bad">false alarms: {}</strong>').format(alarms) if alarms else "no false alarm"
    return Markup("<p>Control on {}: the healthy engine was tried on {}, {}. Harness <code>{}</code>.</p>").format(
        one_line(", ".join(part.devices) or part.machine, 120),
        plural(len(part.healthy), "check"),
        words,
        one_line(", ".join(part.revisions) or "unknown", 120),
    )


def _unseen(severity: Severity) -> list[Markup]:
    unseen = [planted for planted in severity.faults if not planted.specific]
    items = Markup("").join(
        Markup("<li><b>{}</b>: {}</li>").format(one_line(p.fault, 60), one_line("; ".join(p.reasons), 320))
        for p in unseen
    )
    named = Markup("<details><summary>{}, and why</summary><ul>{}</ul></details>")
    return (
        [named.format(plural(len(unseen), "fault that proves nothing", "faults that prove nothing"), items)]
        if unseen
        else []
    )


def _matrix(severity: Severity, ids: Sequence[str]) -> Markup:
    rows: list[list[Markup | str]] = [
        [one_line(p.fault, 60), one_line(p.what, _WORDS), _outcome(p), _must_fail(p, ids), _rows(p.collateral, ids),
         one_line(p.machine, 40)]
        for p in severity.faults
    ]  # fmt: skip
    columns = ["planted fault", "what is wrong", "outcome", "must fail", "changed, too", "machine"]
    caption = "Kill matrix: planted faults and the checks that fail of them"
    return Markup("<details><summary>The kill matrix</summary>{}</details>").format(table(columns, rows, caption))


def _outcome(planted: Planted) -> Markup:
    if not planted.killed_by:
        return Markup('<strong class="bad">✗ survived</strong>')
    if not planted.specific:
        return Markup('<span class="caution">not specific</span>')
    missed = len(set(planted.expected) - {kill.row for kill in planted.killed_by})
    return Markup('<span class="caution">missed by {}</span>').format(missed) if missed else Markup("✓ killed")


def _must_fail(planted: Planted, known: Sequence[str]) -> Markup:
    killed = {kill.row for kill in planted.killed_by}
    marks = [Markup("{} {}").format("✓" if row in killed else "✗", _named(row, known)) for row in planted.expected]
    return _some(marks)


def _rows(rows: Iterable[str], known: Sequence[str]) -> Markup:
    return _some([_named(row, known) for row in rows])


def _named(row: str, known: Sequence[str]) -> Markup:
    return row_link(row) if row in known else Markup("{}").format(one_line(row, 40))


def _some(marks: Sequence[Markup]) -> Markup:
    more = f" and {len(marks) - _MOST_ROWS} more" if len(marks) > _MOST_ROWS else ""
    return Markup(", ").join(marks[:_MOST_ROWS]) + more
