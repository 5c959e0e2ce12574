"""Everything that docs/results keeps of a GPU, step by step within a time: each by its own command, records gathered.

    python benchmarks/gpu_records.py OUT [--seconds 580] [--steps trial,memcheck,…] [--keep-paths]

A step gets its own time limit or what is left, and nothing of it goes on running. OUT gets a directory a step and
`steps.json`: command, seconds, how it ended, the end of what it said. The machine's paths are replaced in what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bounded import run_bounded

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
KEPT = {".json", ".jsonl", ".xml", ".txt", ".md", ".svg", ".log"}
LARGEST = 32 << 20
TOLD = 1500
GRACE_S = 10.0
"""So long a step that is cut may take to close its record."""
FALSIFY = ("-m", "conformance")
WORKERS = ("-n", "8", "--require-gpu")


@dataclass(frozen=True)
class Step:
    """A name, the most seconds, and what Python is given; `{out}` is the step's directory."""

    name: str
    seconds: float
    words: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """How a step went."""

    name: str
    command: str
    seconds: float
    ended: str
    told: str


STEPS = (
    Step("trial", 340, (*FALSIFY, "run", *WORKERS, "--out", "{out}")),
    Step(
        "memcheck", 200, ("benchmarks/memcheck.py", "{out}", "--seconds", "95"),
    ),
    Step("bench", 260, ("benchmarks/bench.py", "--seconds", "60", "--json", "{out}/bench.json")),
    Step("decode", 120, ("benchmarks/decode_gpu.py", "F32", "BF16", "--seconds", "55", "--json", "{out}/steps.jsonl")),
    Step("tests", 200, ("-m", "pytest", "-q", "-p", "no:benchmark", "-p", "no:cacheprovider", "tests/gpu")),
    Step(
        "controls", 200,
        ("-m", "pytest", "-q", "-p", "no:benchmark", "-p", "no:cacheprovider", "-m", "gpu", "tests/checks"),
    ),
    Step(
        "untimed", 800,
        ("benchmarks/repeat_trials.py", "--untimed", "--times", "5", "--keep", "{out}", "--out", "{out}/repeats.json",
         "--", *WORKERS),
    ),
    Step(
        "whole", 700,
        ("benchmarks/repeat_trials.py", "--times", "2", "--keep", "{out}", "--out", "{out}/repeats.json",
         "--", *WORKERS),
    ),
    Step(
        "transformers", 330, (*FALSIFY, "run", *WORKERS, "--engine", "transformers", "--out", "{out}"),
    ),
)  # fmt: skip


def run(step: Step, directory: Path, seconds: float) -> Done:
    """Run a step in the project, for so many seconds at most."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *(word.format(out=directory) for word in step.words)]
    scratch = directory / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch)}
    began = time.monotonic()
    with (directory / "said.log").open("wb") as said:
        ended = run_bounded(command, said, seconds, cwd=ROOT, env=environment, grace=GRACE_S)
    told = (directory / "said.log").read_text(encoding="utf-8", errors="replace")[-TOLD:]
    return Done(step.name, " ".join(step.words), round(time.monotonic() - began, 1), ended, told)


def neutral(text: str, directory: Path) -> str:
    """A text with the machine's paths replaced; `directory` is where the trials of a step lay."""
    names = {directory: "/trials", ROOT: "/project", Path(sys.prefix): "/env", CACHE: "/cache", Path.home(): "/home"}
    for path, name in sorted(names.items(), key=lambda pair: -len(str(pair[0]))):
        text = text.replace(str(path), name)
    return text


def gather(source: Path, target: Path, *, keep_paths: bool) -> None:
    """Copy what is worth keeping of a step: records, reports that are text, numbers; not what trials exchanged."""
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        wanted = path.suffix in KEPT and not {"exchange", "hypothesis", "tmp"} & set(inside.parts)
        if wanted and path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST:
            text = path.read_text(encoding="utf-8", errors="replace")
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            (target / inside).write_text(text if keep_paths else neutral(text, source), encoding="utf-8")


def record(steps: Sequence[Step], out: Path, seconds: float, work: Path, *, keep_paths: bool = False) -> list[Done]:
    """Run steps one after the other as long as there is time, and write after each what is known."""
    until, found = time.monotonic() + seconds, []
    for step in steps:
        left = until - time.monotonic()
        if left <= 0:
            found.append(Done(step.name, " ".join(step.words), 0.0, "no time was left", ""))
        else:
            found.append(run(step, work / step.name, min(left, step.seconds)))
            gather(work / step.name, out / step.name, keep_paths=keep_paths)
            print(f"{step.name}: {found[-1].ended}, {found[-1].seconds} s\n{found[-1].told}", flush=True)
        (out / "steps.json").write_text(json.dumps([asdict(done) for done in found], indent=1) + "\n")
    return found


def main() -> int:
    """Run what was asked for; 1 where a step did not end by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=580)
    parser.add_argument("--steps", default="trial,memcheck,bench", help=", ".join(step.name for step in STEPS))
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "gpu-records", help="Where steps run; large."
    )
    parser.add_argument("--keep-paths", action="store_true", help="Leave the machine's paths in what is kept.")
    chosen = parser.parse_args()
    known = {step.name: step for step in STEPS}
    wanted = chosen.steps.split(",")
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"no step is named {', '.join(unknown)}; there are {', '.join(known)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    steps = [known[name] for name in wanted]
    found = record(steps, chosen.out, chosen.seconds, chosen.work, keep_paths=chosen.keep_paths)
    return int(any(not done.ended.startswith("exit") for done in found))


if __name__ == "__main__":
    sys.exit(main())
