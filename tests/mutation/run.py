"""Mutation testing of what decides verdicts: `python tests/mutation/run.py DIRECTORY [module…]`, by cosmic-ray.

Mutants are tried in a copy of the project, each against the tests of its own module; results stay in DIRECTORY, so
that a run goes on where it was broken off. A mutant is killed only by a test that failed: one that could not be
tried, or that nobody tried yet, is counted apart. Unions in annotations are left out; they are never evaluated.
`python tests/mutation/run.py --score` prints the share of mutants killed, if every module was tried as it is now.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "mutation.json"
JUDGE = ["tests/conformance/test_judge.py", "tests/conformance/test_lies_of_the_judge.py"]
MODULES = {
    "conformance/near_tie.py": ["tests/conformance/test_near_tie.py", "tests/conformance/test_judge.py"],
    "conformance/trial/outcome.py": ["tests/conformance/trial/test_outcome.py", JUDGE[1]],
    "conformance/statistics.py": ["tests/conformance/test_statistics.py", *JUDGE],
    "conformance/record.py": ["tests/conformance/test_record.py", JUDGE[1]],
    "conformance/judge.py": JUDGE,
    "reference_engine/header.py": ["tests/reference_engine/test_header.py"],
}
_CONFIG = """[cosmic-ray]
module-path = "{module}"
timeout = 120.0
excluded-modules = []
test-command = "{python} -m pytest -x -q --no-header {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = ["core/ReplaceBinaryOperator_BitOr_.*"]
"""
_QUERY = """select m.operator_name, m.occurrence, m.start_pos_row, r.worker_outcome, r.test_outcome, r.diff
from mutation_specs m left join work_results r on m.job_id = r.job_id order by m.start_pos_row, m.operator_name"""


def session_of(directory: Path, module: str) -> Path:
    """Where cosmic-ray keeps what it knows of a module."""
    return directory / f"{module.replace('/', '.')}.sqlite"


def try_mutants(directory: Path, module: str) -> None:
    """Try the mutants of a module that were not tried yet."""
    copy = directory / "project"
    if not copy.exists():
        ignored = shutil.ignore_patterns(".git", "__pycache__", "falsify-run", "*.egg-info")
        shutil.copytree(ROOT, copy, ignore=ignored)
    shutil.copyfile(ROOT / module, copy / module)
    session = session_of(directory, module)
    config = session.with_suffix(".toml")
    config.write_text(_CONFIG.format(module=module, python=sys.executable, tests=" ".join(MODULES[module])))
    tool = Path(sys.executable).parent
    if not session.exists():
        subprocess.run([tool / "cosmic-ray", "init", config, session], cwd=copy, check=True)
        subprocess.run([tool / "cr-filter-operators", session, config], cwd=copy, check=True)
    subprocess.run([tool / "cosmic-ray", "exec", config, session], cwd=copy, check=True)
    shutil.copyfile(ROOT / module, copy / module)


def sha256_of(module: str) -> str:
    """The hash of a module as it is now."""
    return hashlib.sha256((ROOT / module).read_bytes()).hexdigest()


def summary_of(session: Path, sha256: str) -> dict[str, object]:
    """How many mutants a module has, and what became of them; survivors by line and change."""
    with sqlite3.connect(session) as database:
        rows = database.execute(_QUERY).fetchall()
    tried = [row for row in rows if row[3] is not None and row[3] != "SKIPPED"]
    killed = [row for row in tried if row[4] == "KILLED"]
    survived = [row for row in tried if row[4] == "SURVIVED"]
    untried = sum(row[3] is None for row in rows)
    return {
        "sha256": sha256,
        "mutants": len(tried) + untried,
        "killed": len(killed),
        "survived": len(survived),
        "incompetent": len(tried) - len(killed) - len(survived),
        "not_tried": untried,
        "killed_share": round(len(killed) / len(tried), 4) if tried else None,
        "survivors": [{"line": row[2], "operator": row[0], "change": _change(row[5])} for row in survived],
    }


def _change(diff: str | None) -> str:
    lines = (diff or "").splitlines()
    return " -> ".join(line[1:].strip() for line in lines if line[:1] in {"-", "+"} and line[:3] not in {"---", "+++"})


def score(known: dict[str, dict[str, object]]) -> str:
    """The share of killed mutants in all modules, or which of them were not tried as they are."""
    stale = [module for module in MODULES if known.get(module, {}).get("sha256") != sha256_of(module)]
    untried = [module for module in MODULES if module not in stale and known[module]["not_tried"]]
    if stale or untried:
        return f"not measured: not tried, or changed since: {', '.join(stale + untried)}"
    tried = sum(int(str(found["mutants"])) for found in known.values())
    killed = sum(int(str(found["killed"])) for found in known.values())
    return f"mutation score {100 * killed / tried:.2f} % of {tried} mutants in {len(known)} modules"


def main() -> None:
    """Try, and write what is known of every module to docs/results/mutation.json."""
    if sys.argv[1] == "--score":
        sys.stdout.write(score(json.loads(RESULTS.read_text())["modules"]) + "\n")
        return
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[2:] or list(MODULES)
    for module in chosen:
        try_mutants(directory, module)
    known = {
        module: summary_of(session_of(directory, module), sha256_of(module))
        for module in MODULES
        if session_of(directory, module).exists()
    }
    state = "Tried by `nox -s mutation`; a module that is not here was not tried."
    RESULTS.write_text(json.dumps({"state": state, "modules": known}, indent=1) + "\n")
    for module, found in known.items():
        sys.stdout.write(f"{module}: {found['killed']} of {found['mutants']} killed, {found['survived']} survived\n")


if __name__ == "__main__":
    main()
