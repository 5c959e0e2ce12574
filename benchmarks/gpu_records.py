"""Everything that docs/results keeps of a GPU, step by step within a time: each by its own command, records gathered.

    python benchmarks/gpu_records.py OUT [--seconds 580] [--steps trial,memcheck,…] [--resume EARLIER]… [--plan]

A step gets its own time limit or what is left, and nothing of it goes on running; one for which too little is left is
not begun. OUT gets few files, written anew after every step: `steps.json` (command, seconds, how each ended, the end of
what it said), `records.tar.gz.NNN` with a directory a step, and `binaries.tar.gz.NNN` where one was built. `--resume`
names the OUT of an earlier call: what was finished there is not run again, what was cut goes on, and all of it is in
the new OUT too. `--unpack DIR` puts what OUT holds into a directory and runs nothing. The machine's paths are replaced
in what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bounded import run_bounded
from gpu_steps import STEPS, Step, chosen
from packing import TooLarge, pack, unpack

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
KEPT = {".json", ".jsonl", ".xml", ".txt", ".md", ".svg", ".log", ".html"}
LEFT_OUT = {"exchange", "hypothesis", "tmp", "trials", "lib", "build"}
LARGEST = 32 << 20
TOLD = 1500
GRACE_S = 10.0
"""So long a step that is cut may take to close its record."""
CLOSING_S = 40.0
"""So long before its end a step that is told its time begins nothing more, and packs what it has."""
PACKING_S = 5.0
LEAST_S = 60.0
"""With less than this left, a step that can go on later is not begun either."""
STEPS_FILE, RECORDS, BINARIES = "steps.json", "records", "binaries"


@dataclass(frozen=True)
class Done:
    """How a step went."""

    name: str
    command: str
    seconds: float
    ended: str
    told: str
    finished: bool = False
    predicted: float = 0.0


def run(step: Step, directory: Path, seconds: float) -> Done:
    """Run a step in the project, for so many seconds at most."""
    directory.mkdir(parents=True, exist_ok=True)
    within = str(max(1, int(seconds - CLOSING_S)))
    words = (word.replace("{out}", str(directory)).replace("{seconds}", within) for word in step.words)
    command = [step.program or sys.executable, *words]
    scratch = directory / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch)}
    began = time.monotonic()
    with (directory / "said.log").open("ab") as said:
        ended = run_bounded(command, said, seconds, cwd=ROOT, env=environment, grace=GRACE_S)
    told = (directory / "said.log").read_text(encoding="utf-8", errors="replace")[-TOLD:]
    finished = ended in {f"exit status {status}" for status in step.done}
    return Done(
        step.name, " ".join(step.words), round(time.monotonic() - began, 1), ended, told, finished, step.predicted
    )


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
        wanted = path.suffix in KEPT and not LEFT_OUT & set(inside.parts)
        if wanted and path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST:
            text = path.read_text(encoding="utf-8", errors="replace")
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            (target / inside).write_text(text if keep_paths else neutral(text, source), encoding="utf-8")


class Campaign:
    """Steps within a time, over what earlier calls left."""

    def __init__(self, out: Path, work: Path, *, keep_paths: bool = False) -> None:
        self.out, self.work, self.keep_paths = out, work, keep_paths
        self.kept, self.binaries = work / RECORDS, work / BINARIES
        self.done: dict[str, Done] = {}

    def resume(self, earlier: Path) -> None:
        """Take what an earlier call left; of two calls that ran a step the later one counts."""
        for each in json.loads((earlier / STEPS_FILE).read_text()):
            self.done[each["name"]] = Done(**each)
        unpack(earlier / RECORDS, self.kept)
        unpack(earlier / BINARIES, self.binaries)

    def record(self, steps: Sequence[Step], seconds: float) -> list[Done]:
        """Run what is not finished, one step after the other as long as there is time; how each stands."""
        until = time.monotonic() + seconds
        for step in steps:
            before = self.done.get(step.name)
            if before is not None and before.finished and not step.anew:
                print(f"{step.name}: finished before, {before.seconds} s", flush=True)
                continue
            self._step(step, until - PACKING_S - time.monotonic())
            self._write()
        return [self.done[step.name] for step in steps]

    def _step(self, step: Step, left: float) -> None:
        needed = min(step.predicted, LEAST_S) if step.goes_on else step.predicted
        if left < needed:
            why = f"not begun: {max(left, 0):.0f} s left, {needed:.0f} needed"
            self.done.setdefault(
                step.name, Done(step.name, " ".join(step.words), 0.0, why, "", predicted=step.predicted)
            )
            print(f"{step.name}: {why}", flush=True)
            return
        print(f"{step.name}: begun, {step.predicted:.0f} s predicted, {left:.0f} s left", flush=True)
        place = self.work / "steps" / step.name
        if step.goes_on and (self.kept / step.name).is_dir():
            shutil.copytree(self.kept / step.name, place, dirs_exist_ok=True)
        if step.binary and self.binaries.is_dir():
            shutil.copytree(self.binaries, place / "lib", dirs_exist_ok=True)
        self.done[step.name] = done = run(step, place, min(left, step.seconds))
        gather(place, self.kept / step.name, keep_paths=self.keep_paths)
        if step.binary and (place / "lib").is_dir():
            shutil.copytree(place / "lib", self.binaries, dirs_exist_ok=True)
        print(f"{step.name}: {done.ended}, {done.seconds} s\n{done.told}", flush=True)

    def _write(self) -> None:
        told = [asdict(done) for done in self.done.values()]
        (self.out / STEPS_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        for directory, name in ((self.kept, RECORDS), (self.binaries, BINARIES)):
            try:
                pack(directory, self.out / name)
            except TooLarge as error:
                print(f"not packed: {error}", flush=True)


def plan(steps: Sequence[Step], seconds: float) -> str:
    """Steps with what they should take, call by call."""
    lines, call, left = [], 1, seconds
    for step in steps:
        if step.predicted > left:
            call, left = call + 1, seconds
        left -= step.predicted
        goes_on = ", goes on if cut" if step.goes_on else ""
        lines.append(f"call {call}  {step.predicted:4.0f} s  {step.name}{goes_on}")
    total = sum(step.predicted for step in steps)
    return "\n".join([*lines, f"{total:.0f} s in {call} calls of {seconds:.0f} s"])


def main() -> int:
    """Run what was asked for; 1 where a step is not finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=580)
    parser.add_argument("--steps", default="prepare,trial,memcheck,bench", help=", ".join(step.name for step in STEPS))
    parser.add_argument("--resume", type=Path, action="append", default=[], metavar="EARLIER")
    parser.add_argument("--plan", action="store_true", help="Say what the steps should take, and run nothing.")
    parser.add_argument("--unpack", type=Path, metavar="DIR", help="Put what OUT holds there, and run nothing.")
    parser.add_argument("--work", type=Path, help="Where steps run; large. Default: a new directory, left behind.")
    parser.add_argument("--keep-paths", action="store_true", help="Leave the machine's paths in what is kept.")
    given = parser.parse_args()
    if given.unpack:
        return int(not unpack(given.out / RECORDS, given.unpack))
    try:
        steps = chosen(given.steps.split(","))
    except KeyError as error:
        parser.error(f"no step is named {error.args[0]}; there are {', '.join(step.name for step in STEPS)}")
    if given.plan:
        print(plan(steps, given.seconds))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    work = given.work or Path(tempfile.mkdtemp(prefix="gpu-records-"))
    campaign = Campaign(given.out, work, keep_paths=given.keep_paths)
    for earlier in given.resume:
        campaign.resume(earlier)
    return int(not all(done.finished for done in campaign.record(steps, given.seconds)))


if __name__ == "__main__":
    sys.exit(main())
