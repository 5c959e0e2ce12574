"""Branch coverage of the packages by the project's own tests: `python tests/coverage/run.py DIRECTORY [pytest…]`.

Processes that tests start count too. Prints `branch coverage N %` if the tests pass, and leaves coverage.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def coverage(*words: str, data: Path) -> int:
    """Run `coverage` in the project; its exit status."""
    environment = os.environ | {"COVERAGE_FILE": str(data), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "coverage", *words], cwd=ROOT, env=environment, check=False).returncode


def main() -> None:
    """Run the tests, combine, print the total."""
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    data, report = directory / "coverage", directory / "coverage.json"
    status = coverage("run", "-m", "pytest", "-q", "-n", "2", *sys.argv[2:], data=data)
    if status:
        raise SystemExit(f"the tests ended with {status}: what they covered says nothing")
    for words in (["combine", "-q"], ["json", "-q", "-o", str(report)]):
        if coverage(*words, data=data):
            raise SystemExit(f"coverage {words[0]} failed")
    totals = json.loads(report.read_text())["totals"]
    sys.stdout.write(f"branch coverage {totals['percent_covered']:.2f} % of {totals['num_statements']} statements\n")


if __name__ == "__main__":
    main()
