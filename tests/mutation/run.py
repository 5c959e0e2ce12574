"""Mutation testing of what decides verdicts: `python tests/mutation/run.py DIRECTORY [module…] [-n N]`.

Mutants are tried in copies of the project, each against the tests of its own module; results stay in DIRECTORY, so that
a run goes on where it was broken off. A mutant is killed by a test that failed or did not end. One that cannot even be
imported says nothing about tests: it is broken, and neither killed nor alive. Nothing is tried of a module whose own
tests fail without a change.
`--score` prints the share of mutants killed, if every module was tried as it is now. `--list FILE` writes the mutants
and tries none; `--mutants FILE` tries those, where cosmic-ray is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parent))
from copies import BROKEN, KILLED, ROOT, SURVIVED, Copies, Limits, TestsFail
from mutants import Mutant, mutants_of, read_mutants, write_mutants

RESULTS = ROOT / "docs" / "results" / "mutation.json"
PLANNED = "planned.json"
WHY = Path(__file__).with_name("survivors.toml")
CONFORMANCE = "tests/conformance/"
RULES = f"{CONFORMANCE}test_rules_by_hand.py"
LIES = f"{CONFORMANCE}test_lies_of_the_judge.py"
JUDGE = [f"{CONFORMANCE}test_judge.py", f"{CONFORMANCE}test_edges_of_the_judge.py", LIES]
GATE = [f"{CONFORMANCE}gate/test_{name}.py" for name in ("policy", "causes", "decision")]
RECORD = [f"{CONFORMANCE}test_lines_of_the_record.py", LIES, f"{CONFORMANCE}test_record.py"]
HEADER = [f"tests/reference_engine/test_{name}.py" for name in ("header_causes", "header")]
MODULES = {
    "conformance/near_tie.py": [f"{CONFORMANCE}test_near_tie.py", RULES, *JUDGE],
    "conformance/trial/outcome.py": [LIES, RULES, f"{CONFORMANCE}trial/test_outcome.py"],
    "conformance/statistics.py": [RULES, f"{CONFORMANCE}test_statistics.py", *JUDGE],
    "conformance/record.py": RECORD,
    "conformance/judge.py": JUDGE,
    "conformance/gate/decision.py": GATE,
    "conformance/gate/policy.py": GATE,
    "reference_engine/header.py": HEADER,
}
"""The tests of each module; the quick ones first, for a mutant is tried until one kills it."""
_SECONDS = 300.0
"""So long may the tests of a module take that was not changed."""


def try_mutants(
    directory: Path, mutants: list[Mutant], workers: int, *, seconds: float = math.inf, slow: bool = True
) -> None:
    """Try the mutants that were not tried yet, and start none after so many seconds; each result is kept as it comes.

    Raises:
        TestsFail: a module's own tests fail without a change; those of other modules were tried.
    """
    end = time.monotonic() + seconds
    results = directory / "results.jsonl"
    known = {line["key"] for line in _lines(results)}
    left = [mutant for mutant in mutants if mutant.key not in known]
    failed: list[TestsFail] = []
    with Copies(directory, workers) as copies, results.open("a", encoding="utf-8") as file:
        limits: dict[str, Limits] = {}
        for module in dict.fromkeys(mutant.module for mutant in left):
            try:
                limits[module] = copies.limits(module, MODULES[module], _SECONDS, slow=slow)
            except TestsFail as why:
                failed.append(why)

        def tried(mutant: Mutant) -> tuple[str, str] | None:
            if time.monotonic() > end:
                return None
            return copies.outcome(mutant.module, mutant.text, MODULES[mutant.module], limits[mutant.module])

        with ThreadPoolExecutor(workers) as pool:
            runs = {pool.submit(tried, mutant): mutant for mutant in left if mutant.module in limits}
            for number, run in enumerate(as_completed(runs), 1):
                if found := run.result():
                    _keep(file, runs[run], *found)
                    sys.stderr.write(f"[{number}/{len(runs)}] {runs[run].module}:{runs[run].line} {found[0]}\n")
    if failed:
        raise failed[0]


def _keep(file: IO[str], mutant: Mutant, outcome: str, by: str) -> None:
    line = {"key": mutant.key, "module": mutant.module, "operator": mutant.operator, "line": mutant.line}
    file.write(json.dumps(line | {"change": mutant.change, "outcome": outcome, "by": by}) + "\n")
    file.flush()


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def sha256_of(module: str) -> str:
    """The hash of a module as it is now."""
    return hashlib.sha256((ROOT / module).read_bytes()).hexdigest()


def score(known: dict[str, dict[str, object]]) -> str:
    """The share of killed mutants in all modules, or which of them were not tried as they are."""
    stale = [module for module in MODULES if known.get(module, {}).get("sha256") != sha256_of(module)]
    partly = [module for module in MODULES if module not in stale and known[module].get("not_tried") != 0]
    if stale or partly:
        return f"not measured: not tried to the end, or changed since: {', '.join(stale + partly)}"
    killed, survived, broken = (
        sum(int(str(found[outcome])) for found in known.values()) for outcome in (KILLED, SURVIVED, BROKEN)
    )
    share = 100 * killed / (killed + survived)
    return f"mutation score {share:.2f} % of {killed + survived} mutants in {len(known)} modules; {broken} did not run"


def plan(directory: Path, mutants: Iterable[Mutant]) -> None:
    """Write down, before any is tried, how many mutants each module has and what it was: a part is not the whole."""
    counted = Counter(mutant.module for mutant in mutants)
    planned = {module: {"sha256": sha256_of(module), "mutants": count} for module, count in counted.items()}
    path = directory / PLANNED
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | planned, indent=1) + "\n", encoding="utf-8")


def reason_of(survivor: dict[str, str], reasons: Iterable[dict[str, str]]) -> str:
    """Why a survivor changes nothing that a test should see: the first reason that fits it; empty where none does."""
    for reason in reasons:
        if (
            reason.get("module", survivor["module"]) == survivor["module"]
            and survivor["operator"].endswith(reason.get("operator", ""))
            and reason.get("change", "") in survivor["change"]
        ):
            return reason["why"]
    return ""


def summary_of(
    results: Iterable[dict[str, str]], module: str, reasons: Iterable[dict[str, str]], planned: dict[str, Any]
) -> dict[str, object]:
    """How many mutants of a module were killed; survivors by line and change, with the reason where one is known.

    `planned` is what the module was when its mutants were made, and how many there are; nothing where nobody knows.
    """
    mine = [line for line in results if line["module"] == module]
    counted = {outcome: sum(line["outcome"] == outcome for line in mine) for outcome in (KILLED, SURVIVED, BROKEN)}
    decided = counted[KILLED] + counted[SURVIVED]
    survivors = [
        {"line": line["line"], "operator": line["operator"], "change": line["change"],
         "why": reason_of(line, reasons)}
        for line in mine if line["outcome"] == SURVIVED
    ]  # fmt: skip
    share = round(counted[KILLED] / decided, 4) if decided else None
    left = planned["mutants"] - len(mine) if planned else None
    found = {"sha256": planned.get("sha256"), "mutants": len(mine), "not_tried": left}
    found |= {**counted, "killed_share": share}
    return found | {"tests": MODULES[module], "survivors": survivors}


def main() -> None:
    """Try mutants, and write what is known of every module to docs/results/mutation.json."""
    parser = argparse.ArgumentParser(description="Mutation testing of what decides verdicts.")
    parser.add_argument("directory", type=Path, nargs="?", default=Path("mutation-run"))
    parser.add_argument("modules", nargs="*")
    parser.add_argument("-n", "--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no mutant after so many")
    parser.add_argument("--fast", action="store_true", help="leave out tests marked slow; what they kill then survives")
    parser.add_argument("--list", type=Path, help="write the mutants here and try none")
    parser.add_argument("--mutants", type=Path, help="try the mutants of this file")
    parser.add_argument("--score", action="store_true", help="say what is known and try none")
    parser.add_argument("--write", action="store_true", help="write what the directory holds and try none")
    given = parser.parse_args()
    if given.score:
        sys.stdout.write(score(json.loads(RESULTS.read_text(encoding="utf-8"))["modules"]) + "\n")
        return
    if given.write:
        write_results(given.directory)
        return
    directory = given.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    modules = given.modules or list(MODULES)
    if given.mutants:
        mutants = [mutant for mutant in read_mutants(given.mutants) if mutant.module in modules]
    else:
        mutants = [mutant for module in modules for mutant in mutants_of(ROOT, module)]
    if given.list:
        write_mutants(mutants, given.list)
        return
    plan(directory, mutants)
    try:
        try_mutants(directory, mutants, given.workers, seconds=given.seconds, slow=not given.fast)
    finally:
        write_results(directory)


def write_results(directory: Path) -> None:
    """Write docs/results/mutation.json from the results in a directory; modules that it knows nothing of stay."""
    results = _lines(directory / "results.jsonl")
    reasons = tomllib.loads(WHY.read_text(encoding="utf-8"))["equivalent"]
    tried = {line["module"] for line in results}
    path = directory / PLANNED
    planned = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {
        module: summary_of(results, module, reasons, planned.get(module, {})) for module in MODULES if module in tried
    }
    standing = json.loads(RESULTS.read_text(encoding="utf-8"))["modules"] if RESULTS.is_file() else {}
    told = {module: found.get(module) or standing[module] for module in MODULES if module in {*found, *standing}}
    RESULTS.write_text(json.dumps({"modules": told}, indent=1) + "\n", encoding="utf-8")
    for module, each in found.items():
        sys.stdout.write(f"{module}: {each[KILLED]} of {each['mutants']} killed, {each[SURVIVED]} survived\n")


if __name__ == "__main__":
    main()
