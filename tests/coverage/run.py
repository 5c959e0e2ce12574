"""Branch coverage of the packages by the project's own tests: `python tests/coverage/run.py DIRECTORY [pytest…]`.

Processes that tests start count too. Prints `branch coverage N %` if the tests pass, and leaves coverage.json in the
directory. What was measured is kept in docs/results/coverage.json with the hash of all sources and tests; while that
hash holds, nothing is measured again. What only a GPU reaches is left out by pyproject.toml; on a machine with one,
`coverage run --rcfile tests/coverage/gpu.toml -m pytest -m gpu` counts it. Adapters of engines that are not installed
count as not run; `absent` names those engines.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "results" / "coverage.json"
FOLDERS = ("conformance", "reference_engine", "reports", "checks", "tests")
WORST = 12
ENGINES = (
    "fastsafetensors", "llama_cpp", "mistralrs", "mlx", "ray", "runai_model_streamer", "tinygrad", "transformers",
    "triton", "xllamacpp",
)  # fmt: skip


def coverage(*words: str, data: Path) -> int:
    """Run `coverage` in the project; its exit status."""
    environment = os.environ | {"COVERAGE_FILE": str(data), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "coverage", *words], cwd=ROOT, env=environment, check=False).returncode


def sources_sha256() -> str:
    """One hash over names and bytes of all sources and tests."""
    files = [ROOT / "pyproject.toml", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def summary_of(report: dict[str, dict[str, dict[str, dict[str, float]]]]) -> dict[str, object]:
    """The total, what was not installed, and the files that lack most."""
    totals = report["totals"]
    lacking = sorted(report["files"].items(), key=lambda item: -item[1]["summary"]["missing_lines"])
    return {
        "percent": totals["percent_covered"],
        "statements": totals["num_statements"],
        "branches": totals["num_branches"],
        "absent": [name for name in ENGINES if find_spec(name) is None],
        "lacking": {name: file["summary"]["missing_lines"] for name, file in lacking[:WORST]},
    }


def measure(directory: Path, *words: str) -> dict[str, object]:
    """Run the tests and count; ends where they fail, for what failing tests covered says nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    data, report = directory / ".coverage", directory / "coverage.json"
    status = coverage("run", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *words, data=data)
    if status:
        raise SystemExit(f"the tests ended with {status}: what they covered says nothing")
    for command in (["combine", "-q"], ["json", "-q", "-o", str(report)]):
        if coverage(*command, data=data):
            raise SystemExit(f"coverage {command[0]} failed")
    return summary_of(json.loads(report.read_text()))


def main() -> None:
    """Print the total, from what is kept if it is of these sources."""
    now = sources_sha256()
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    if kept.get("sha256") != now:
        found = measure(Path(sys.argv[1]).resolve(), *sys.argv[2:])
        kept = {"sha256": now, "measured": datetime.now(UTC).date().isoformat(), **found}
        if not sys.argv[2:]:
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    sys.stdout.write(f"branch coverage {kept['percent']:.2f} % of {kept['statements']} statements\n")


if __name__ == "__main__":
    main()
