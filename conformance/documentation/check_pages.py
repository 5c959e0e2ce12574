"""`docs/checks/f-….md`: one page a row, from the catalogue, the thresholds and the committed records."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import msgspec

from conformance.catalogue import Catalogue, Row
from conformance.documentation.evidence import Committed, Told
from conformance.documentation.markdown import code, fenced, table
from conformance.thresholds import Limit, Thresholds

_SHOWN = {"reason", "relation", "limit", "unit"}
_BY_CHANCE = ("R1", "R3", "by fault class", "not tried")
_SPECIFICATION = "../safetensors-gpu-inference-1.2.0.md"


def check_page(row: Row, catalogue: Catalogue, thresholds: Thresholds, evidence: Committed, root: Path) -> str:
    """The page of one row.

    Args:
        row: the row.
        catalogue: for the section's name.
        thresholds: every number that decides it.
        evidence: the committed records.
        root: the project, for the check's own place.
    """
    section = catalogue.section(row.section)
    parts = [
        f"# {row.id}",
        f"> {row.test}. {row.criterion}.",
        f"[Specification]({_SPECIFICATION}), section 6, {section.numeral}. {section.title}. {_facts(row)}",
        f"## What an easier check would miss\n\n{_sentence(row.why)}",
        _judged(row, thresholds.rows.get(row.id, {}), evidence),
        _seen(row, evidence),
        _kills(row, evidence),
        _reproduce(row, root),
    ]
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _facts(row: Row) -> str:
    gpu = "It needs a GPU; without one it is rehearsed where it can be" if row.needs_cuda else "It needs no GPU"
    alone = ", and it runs alone, after everything else" if row.alone else ""
    softer = "a WARNING" if row.severity == "WARNING" else "FALSIFIED"
    return f"{gpu}{alone}. A failure is {softer}."


def _judged(row: Row, limits: dict[str, Limit], evidence: Committed) -> str:
    if not row.written:
        return "## How it is judged\n\n**Not written yet: UNTESTED.**"
    told = {one.name: one for one in evidence.told(row.id)}
    lines = [_rule_line(name, told.get(name)) for name in row.observes]
    lines += [_rule_line(name, told.get(name), " (on a GPU)") for name in row.observes_on_gpu]
    head = ["observation", "rule", "error rate", "smallest effect seen"]
    text = "Every one of these must be brought, and none may fail; a row that brings fewer is the harness's own ERROR."
    parts = ["## How it is judged", text, table(head, lines)]
    if limits:
        stated = [[code(name), _stated(limit), _further(limit), limit.reason] for name, limit in sorted(limits.items())]
        parts += ["## Limits", table(["observation", "limit", "further numbers", "reason"], stated)]
    return "\n\n".join(parts)


def _rule_line(name: str, told: Told | None, where: str = "") -> list[str]:
    if told is None:
        return [code(name) + where, "not in the committed trial", "", ""]
    rate = told.error_rate or ("" if told.rule.startswith(_BY_CHANCE) else "no chance in it")
    return [code(name) + where, told.rule, rate, told.detectable]


def _seen(row: Row, evidence: Committed) -> str:
    head = evidence.record.header
    found = evidence.row(row.id)
    title = "## As the reference engine fared"
    if found is None:
        return f"{title}\n\nThe committed trial has no line of this row."
    verdict = f"{found.verdict.value}{f': {found.reason}' if found.reason else ''}"
    lines = [[code(one.name), str(one.points), one.verdicts, one.limit, one.detail] for one in evidence.told(row.id)]
    text = f"In the [committed trial](../results/h100/README.md) of {head.started[:10]} on an H100: **{verdict}**."
    return "\n\n".join([title, text, table(["observation", "points", "verdict", "limit", "what was seen"], lines)])


def _kills(row: Row, evidence: Committed) -> str:
    title = "## Faults that kill it"
    if evidence.severity is None:
        return f"{title}\n\nNot shown: no kill matrix is committed with this version."
    killers = evidence.killers(row.id)
    if not killers:
        return f"{title}\n\nNone of the planted faults of the committed kill matrix; its own controls stand for it."
    lines = [[code(fault.fault), fault.what, how, fault.seen_in or fault.machine] for fault, how in killers]
    return f"{title}\n\n{table(['planted fault', 'what is wrong', 'how the row saw it', 'where'], lines)}"


def _reproduce(row: Row, root: Path) -> str:
    command = fenced(f"falsify run -k {row.id}", "sh")
    where = check_of(row, root)
    check = f"The check is {code(row.function)} in [{where}](../../{where})." if where else ""
    return "\n\n".join(part for part in ["## Reproduce", command, check] if part)


@cache
def _functions(root: Path) -> dict[str, frozenset[str]]:
    """The names of functions by file of checks."""
    return {
        f"checks/{path.name}": frozenset(
            node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
        )
        for path in sorted((root / "checks").glob("test_*.py"))
    }


def check_of(row: Row, root: Path) -> str:
    """The file that has the row's check; empty if there is none."""
    return next((name for name, functions in _functions(root).items() if row.function in functions), "")


def _stated(limit: Limit) -> str:
    return "" if limit.limit is None else f"{limit.relation} {limit.limit:.10g} {limit.unit}".strip()


def _further(limit: Limit) -> str:
    fields = msgspec.structs.fields(Limit)
    given = {field.name: getattr(limit, field.name) for field in fields if field.name not in _SHOWN}
    defaults = {field.name: field.default for field in fields}
    return ", ".join(f"{name} {_plain(value)}" for name, value in given.items() if value != defaults[name])


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(str(item) for item in value)
    return f"{value:.10g}" if isinstance(value, int | float) else str(value)
