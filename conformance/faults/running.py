"""`falsify severity`: which faults are chosen, what of them is still to be tried, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.environment import cpu_model
from conformance.faults.ledger import HEALTHY, Entry, Ledger, ground_sha256, rows_in, source_of, write_whole
from conformance.faults.matrix import Matrix, alarmed, healthy_results, judged, rows_for, surprising
from conformance.faults.planting import Fault, UnknownFault
from conformance.faults.pool import Bench, Task, Trials
from conformance.faults.problems import BadDevices
from conformance.faults.trying import Tried
from conformance.probes.nvml import confine, gpus
from conformance.revision import sources_name
from conformance.trial.sharding import parse_part
from reports.severity import severity_page

TRIED = "tried"


def chosen_faults(known: Mapping[str, Fault], names: Sequence[str], areas: Sequence[str], machine: str) -> list[Fault]:
    """The faults that are asked for, of those that this machine can show.

    Raises:
        UnknownFault: a name or area that matches none; running nothing must never look green.
    """
    for name in names:
        if name not in known:
            raise UnknownFault(name)
    for area in areas:
        if area not in {planted.area for planted in known.values()}:
            raise UnknownFault(area)
    shown = {machine} if machine else {"cpu", "gpu"} if gpus() else {"cpu"}
    chosen = [
        planted
        for planted in known.values()
        if (not names or planted.name in names) and (not areas or planted.area in areas) and planted.machine in shown
    ]
    if not chosen:
        raise UnknownFault(machine or ", ".join([*names, *areas]))
    return chosen


def shard_of(faults: Sequence[Fault], shard: str) -> list[Fault]:
    """Every N-th fault, beginning with the I-th, of a shard `I/N`; all without one.

    Raises:
        NotAShard: it is none.
    """
    if not shard:
        return list(faults)
    part = parse_part(shard)
    return list(faults[part.index - 1 :: part.of])


def confined(devices: str) -> None:
    """Use only these GPUs: numbers with commas between, or `none`; empty: all.

    Raises:
        BadDevices: it is neither.
    """
    if not devices:
        return
    numbers = [] if devices == "none" else devices.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise BadDevices(devices)
    confine([int(number) for number in numbers])


def run_and_write(
    faults: Sequence[Fault],
    out: Path,
    module: Path | None,
    *,
    full: bool,
    workers: int,
    limit_s: float,
    say: Callable[[str], None],
) -> Matrix:
    """Try what was not tried yet with these sources, and leave `severity.json` and `severity.html` in `out`.

    Every trial is kept in `out` as it ends, and `severity.json` written anew: cut off, the next call goes on.
    """
    ledger = Ledger(out.resolve() / TRIED)
    known = {planted.name: planted for planted in faults}
    bench = Bench(known, module, out.resolve() / "trials", workers, say, limit_s)
    for matrix in Campaign(ledger, bench).run(full=full):
        write_matrix(matrix, out)
    matrix = judged(ledger.entries, known)
    write_matrix(matrix, out)
    (out / "severity.html").write_text(severity_page(matrix), encoding="utf-8")
    return matrix


def join(parts: Sequence[Path], known: Mapping[str, Fault], out: Path) -> Matrix:
    """Judge the trials of several directories together; the page lies beside `out`.

    Raises:
        BrokenLedger: a file among them is no trial.
        UnknownFault: there are none.
    """
    entries = [entry for part in parts for entry in Ledger(part / TRIED).entries]
    matrix = judged(entries, known)
    if not matrix.faults:
        raise UnknownFault(", ".join(map(str, parts)))
    write_whole(out, msgspec.json.format(msgspec.json.encode(matrix), indent=1) + b"\n")
    out.with_suffix(".html").write_text(severity_page(matrix), encoding="utf-8")
    return matrix


def write_matrix(matrix: Matrix, out: Path) -> None:
    """Write `severity.json`, whole at any moment."""
    write_whole(out / "severity.json", msgspec.json.format(msgspec.json.encode(matrix), indent=1) + b"\n")


class Campaign:
    """All trials that a matrix needs: the healthy engine, the faults, then what surprised, once more."""

    def __init__(self, ledger: Ledger, bench: Bench) -> None:
        self._ledger = ledger
        self._bench = bench
        self._trials = Trials(bench)
        self._gpu = bool(gpus())
        self._machine = "gpu" if self._gpu else "cpu"
        self._device = gpus()[0].name if self._gpu else cpu_model()
        self._revision = sources_name()

    def run(self, *, full: bool) -> Iterator[Matrix]:
        """The matrix after every trial."""
        wanted = {planted.name: rows_for(planted, full=full) for planted in self._bench.faults.values()}
        controls = self._controls({row for rows in wanted.values() for row in rows})
        yield from self._tried([*controls, *self._missing(wanted)])
        yield from self._tried(self._again())

    def _tried(self, tasks: Sequence[Task]) -> Iterator[Matrix]:
        for task, tried in self._trials.run(tasks):
            planted = self._bench.faults.get(task.fault)
            self._ledger.add(
                Entry(
                    fault=task.fault or HEALTHY,
                    machine=self._machine,
                    device=self._device,
                    revision=self._revision,
                    source=source_of(planted),
                    ground=ground_sha256(),
                    tried=tried,
                )
            )
            yield judged(self._ledger.entries, self._bench.faults)

    def _of(self, fault: str) -> list[Tried]:
        return self._ledger.of(fault or HEALTHY, self._machine, source_of(self._bench.faults.get(fault)))

    def _controls(self, rows: set[str]) -> list[Task]:
        """The healthy engine on the rows where it was not tried, a task a section; those that run alone apart."""
        tasks: dict[tuple[str, bool], list[str]] = {}
        for row in load_catalogue().rows:
            if row.id in rows - rows_in(self._of("")):
                tasks.setdefault((row.section, self._gpu and row.alone), []).append(row.id)
        first = next(iter(tasks), None)
        return [Task("", found, key[1], smoked=key == first) for key, found in tasks.items()]

    def _missing(self, wanted: Mapping[str, Sequence[str]]) -> Iterator[Task]:
        """Each fault on the rows where it was not tried; smoke only the first time."""
        for name, rows in wanted.items():
            before = self._of(name)
            left = [row for row in rows if row not in rows_in(before) | {row for tried in before for row in tried.lost}]
            yield from self._tasks(name, left, smoked=not any(tried.smoked for tried in before))

    def _again(self) -> list[Task]:
        """False alarms, what changed where it should not, and smoke that failed: all that was seen only once."""
        mine = [entry for entry in self._ledger.entries if entry.machine == self._machine]
        alarms = [
            result.id for tried in self._of("") for result in tried.rows
            if alarmed(result) and sum(row.id == result.id for each in self._of("") for row in each.rows) == 1
        ]  # fmt: skip
        tasks = [task for row in alarms for task in self._tasks("", [row], smoked=False)]
        healthy = healthy_results(mine)
        for name, planted in self._bench.faults.items():
            trials = self._of(name)
            rows = surprising(planted, trials, healthy)
            smoked = [tried for tried in trials if tried.smoked]
            fails = len(smoked) == 1 and bool(smoked[0].smoke_failures) and not planted.crash
            if fails and not rows:
                tasks.append(Task(name, [], smoked=True))
            tasks += self._tasks(name, rows, smoked=fails)
        return tasks

    def _tasks(self, fault: str, rows: Sequence[str], *, smoked: bool) -> list[Task]:
        """Rows that may run beside others, with smoke; then those that must be alone, which cost a machine's time."""
        alone = [row for row in rows if self._gpu and load_catalogue().row(row).alone]
        together = [row for row in rows if row not in alone]
        parts = [(part, apart) for part, apart in ((together, False), (alone, True)) if part]
        return [Task(fault, part, apart, smoked=smoked and place == 0) for place, (part, apart) in enumerate(parts)]
