"""Repeats a trial with new seeds and orders, and says whether any row changed its verdict.

`python benchmarks/repeat_trials.py --times 20 --out repeats.json -- -n 2` runs `falsify run --seed random -n 2`
that often; what stands after `--` goes to `falsify run`. `--read DIRECTORY` compares the trials that earlier calls kept
anywhere below it, and runs none.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from conformance.catalogue import load_catalogue
from conformance.record import Record, read_record


def run_once(arguments: list[str], timeout: float, keep: Path | None = None) -> tuple[Record, float]:
    """One trial in a process of its own; its record and its wall time in seconds. Its directory is kept in `keep`."""
    with tempfile.TemporaryDirectory(prefix="falsify-repeat-") as directory:
        command = [sys.executable, "-m", "conformance", "run", "--seed", "random", "--out", directory, *arguments]
        began = time.monotonic()
        subprocess.run(command, timeout=timeout, check=False, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        left = (Path(directory) / "latest").resolve()
        if keep is not None:
            shutil.copytree(left, keep / left.name, ignore=shutil.ignore_patterns("exchange", "hypothesis"))
        return read_record(left / "record.jsonl"), seconds


def kept_in(directory: Path) -> list[tuple[Record, float]]:
    """The records below a directory with how long their trials took, in the order they were begun.

    Raises:
        SystemExit: there are none.
    """
    found = [read_record(path) for path in sorted(directory.rglob("record.jsonl"), key=lambda path: path.parent.name)]
    if not found:
        raise SystemExit(f"no trial was kept in {directory}")
    return [(record, record.footer.duration_s if record.footer else 0.0) for record in found]


def told_of(record: Record) -> dict[str, str]:
    """What a row showed, by id: its verdict, and how its rehearsal ended."""
    return {
        row.id: f"{row.verdict.value} {row.rehearsed.value if row.rehearsed else ''}".strip() for row in record.rows
    }


def summary(records: list[tuple[Record, float]]) -> dict[str, Any]:
    """Seeds, counts and seconds of every trial, each row that changed its verdict, and why some are undecided."""
    told = [told_of(record) for record, _ in records]
    rows = sorted({row for each in told for row in each})
    differing = {row: [each.get(row, "absent") for each in told] for row in rows if len({e.get(row) for e in told}) > 1}
    undecided = {
        row.id: row.reason for record, _ in records for row in record.rows if row.verdict.value == "INCONCLUSIVE"
    }
    first = records[0][0].header
    return {
        "revision": first.revision,
        "rehearsal": first.rehearsal,
        "model": first.model.name,
        "trials": len(records),
        "rows": len(first.selected),
        "differing": differing,
        "inconclusive": undecided,
        "runs": [
            {
                "seed": record.header.seed,
                "seconds": round(seconds, 1),
                "verdicts": dict(Counter(told_of(record).values())),
            }
            for record, seconds in records
        ],
    }


def main() -> int:
    """Run, compare, write; 1 where a row changed its verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one trial")
    parser.add_argument("--keep", type=Path, help="a directory for the trials' records and scorecards")
    parser.add_argument("--read", type=Path, metavar="DIRECTORY", help="compare what was kept there, and run nothing")
    parser.add_argument("--untimed", action="store_true", help="only the rows that need no quiet machine")
    parser.add_argument("arguments", nargs="*", help="arguments of `falsify run`")
    given = parser.parse_args()
    rows = [f"-k{row.id}" for row in load_catalogue().rows if given.untimed and not row.alone]
    records: list[tuple[Record, float]] = kept_in(given.read) if given.read else []
    if records:
        found = summary(records)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        return 1 if found["differing"] else 0
    for _ in range(given.times):
        records.append(run_once([*given.arguments, *rows], given.timeout, given.keep))
        found = summary(records)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found["runs"][-1]), "differing:", sorted(found["differing"]), flush=True)
    return 1 if found["differing"] else 0


if __name__ == "__main__":
    sys.exit(main())
