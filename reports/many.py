"""What an index of many records says, as text: how engines fared, where groups differ, where a word stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from conformance.verdicts import Rehearsed, Verdict
from reports.index import BROKEN, TRUNCATED, read_index
from reports.text import one_line, plural

if TYPE_CHECKING:
    import pandas as pd

Group = Literal["engine", "version", "model", "machine", "revision", "thresholds"]
GROUPS: tuple[Group, ...] = ("engine", "version", "model", "machine", "revision", "thresholds")
_SHOWN = 40
_NAME = 40
_WIDTHS = {"engine": _NAME, "path": 80, "reason": 160}


def summary_text(index: Path) -> str:
    """How many trials of each engine ended how, and the verdicts of their rows; broken records are named."""
    table = read_index(index, ["path", "engine", "ended", "exit_code", "rehearsal", "verdict", "reason"])
    trials = table.drop_duplicates("path")
    broken = trials[trials["ended"] == BROKEN]
    sound = table[table["ended"] != BROKEN]
    counted = Counter(zip(sound["engine"], sound["verdict"], strict=True))
    lines = [f"{plural(len(trials), 'record')}, {len(broken)} broken, {_count(trials, 'ended', TRUNCATED)} truncated"]
    for engine, mine in trials[trials["ended"] != BROKEN].groupby("engine", observed=True):
        verdicts = [f"{counted[engine, each]} {each}" for each in Verdict if counted[engine, each]]
        lines.append(f"{one_line(str(engine), _NAME)}: {_codes(mine)}; {', '.join(verdicts)}")
    lines += [f"broken: {one_line(path, 120)}: {reason}" for path, reason in _pairs(broken, "path", "reason")]
    return "\n".join(lines) + "\n"


def compared_text(index: Path, group: Group) -> str:
    """Rows on which groups of trials differ, with the share of each group's trials that survived them."""
    table = read_index(index, ["row", "verdict", "rehearsed", "ended", group])
    tried = table[(table["ended"] != BROKEN) & ((table["verdict"] != Verdict.UNTESTED) | (table["rehearsed"] != ""))]
    survived = (tried["verdict"] == Verdict.CORROBORATED) | (tried["rehearsed"] == Rehearsed.SURVIVED)
    shares = tried.assign(survived=survived.astype(float)).pivot_table("survived", "row", group, observed=True)
    differing = shares[shares.max(axis=1) != shares.min(axis=1)]
    head = f"{len(differing)} of {plural(len(shares), 'row')} differ by {group}; share of trials that survived:"
    lines = [head, *(_share_line(str(row), values) for row, values in differing.iterrows())]
    return "\n".join(lines) + "\n"


def found_text(index: Path, word: str, most: int = _SHOWN) -> str:
    """Rows whose id, engine, model, verdict or reason has this text in it, letters' case apart."""
    table = read_index(index, ["started", "path", "engine", "model", "row", "verdict", "reason"])
    hit = table["row"].isna()
    for name in ("row", "engine", "model", "verdict", "reason"):
        values = table[name].cat.categories
        has = values[values.str.contains(word, case=False, regex=False)]
        hit |= table[name].isin(has)
    found = table[hit].sort_values(["started", "path"], ascending=False)
    lines = [f"{plural(len(found), 'row')} of {plural(found['path'].nunique(), 'record')} with {word!r}"]
    lines += [_hit(line) for line in found.head(most).to_dict("records")]
    if len(found) > most:
        lines.append(f"… and {len(found) - most} more")
    return "\n".join(lines) + "\n"


def has_broken(index: Path) -> bool:
    """True where a record could not be read, so that nothing said of all of them is complete."""
    return bool((read_index(index, ["ended"])["ended"] == BROKEN).any())


def _codes(trials: pd.DataFrame) -> str:
    codes = [f"{n} with exit code {code}" for code, n in trials["exit_code"].value_counts().items()]
    return f"{plural(len(trials), 'trial')} ({int(trials['rehearsal'].sum())} rehearsals); {', '.join(codes)}"


def _count(trials: pd.DataFrame, column: str, value: str) -> int:
    return int((trials[column] == value).sum())


def _pairs(table: pd.DataFrame, one: str, other: str) -> list[tuple[str, str]]:
    return [(str(a), str(b)) for a, b in table[[one, other]].itertuples(index=False)]


def _share_line(row: str, shares: pd.Series[float]) -> str:
    told = sorted(f"{one_line(str(name), _NAME)} {share:.0%}" for name, share in shares.dropna().items())
    return f"{row:12} {', '.join(told)}"


def _hit(line: Mapping[Hashable, object]) -> str:
    engine, path, reason = (one_line(str(line[name]), most) for name, most in _WIDTHS.items())
    return f"{line['started']}  {line['row']}  {line['verdict']}  {engine}  {path}  {reason}"
