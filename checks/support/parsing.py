"""Files by class put to the engine: which of its answers break the row's own words, and which only ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from conformance.corpus.safetensors.classes import CorpusClass
from conformance.corpus.safetensors.core import tried_on
from conformance.corpus.safetensors.findings import How
from conformance.corpus.safetensors.hunt import DEFAULT_EXAMPLES, LONG_EXAMPLES, Budget, Failure, Hunt, confine, hunt
from conformance.corpus.safetensors.keep import keep
from conformance.corpus.safetensors.probe import Outcome, Prober, Status
from conformance.corpus.safetensors.rules import Demand
from conformance.observations import CaseFailure, Cases
from conformance.trial.stand import Stand

TryFile = Callable[[bytes], Outcome]
_SHRINKING = Budget(restarts=50, seconds=20.0)
_NO_SHRINKING = Budget(restarts=0, seconds=0.0)
# After a failure the verdict is known; the rest of the classes only makes the report fuller.
_PATIENCE_S = 90.0
_SAYS_NOTHING_OF_REFUSING = "F-PARSE-045"


def is_hardening(corpus_class: CorpusClass, failure: Failure) -> bool:
    """Whether a failure breaks a demand of ours and not the criterion's own words.

    Those are errors that are unclear, late, slow or costly, what is made of files that the format leaves open,
    and malformed metadata that is let pass: its criterion speaks only of metadata that is missing.
    """
    how = failure.finding.how
    refused = failure.outcome.status is Status.REJECTED
    return (
        how is How.UNCLEAR_ERROR
        or failure.finding.late
        or (how is How.HANG and refused)
        or (how is How.MISREAD and not failure.of_control and corpus_class.demand is Demand.EITHER)
        or (how is How.WRONG_ACCEPT and corpus_class.row == _SAYS_NOTHING_OF_REFUSING)
    )


@dataclass(slots=True)
class Catch:
    """What was found in a row: examples by class, failures of the criterion, and failures of hardening."""

    ran: dict[str, int] = field(default_factory=dict)
    required: dict[str, int] = field(default_factory=dict)
    broken: list[CaseFailure] = field(default_factory=list)
    soft: list[CaseFailure] = field(default_factory=list)
    left_open: list[str] = field(default_factory=list)


class Hunter:
    """Tries a row's classes on the engine, keeps each smallest failure as evidence, and observes the catch."""

    def __init__(self, stand: Stand, try_file: TryFile | None = None) -> None:
        self.stand = stand
        self.prober = prober_of(stand)
        self.try_file = try_file or self.prober.try_bytes
        self.catch = Catch()
        self._began = time.monotonic()
        self._shrinking_ends = float("inf")
        self._starts = stand.engine.starts

    def hunt_row(self) -> Hunter:
        """Try the classes that the trial's profile tries on this row."""
        confine(self.stand.plan.directory / "hypothesis")
        for corpus_class in tried_on(self.stand.row.id, self.stand.plan.profile):
            self._hunt(corpus_class)
        return self

    def _hunt(self, corpus_class: CorpusClass) -> None:
        name, catch = corpus_class.name, self.catch
        examples = LONG_EXAMPLES if self.stand.plan.profile == "long" else DEFAULT_EXAMPLES
        catch.required[name] = examples
        catch.ran[name] = 0
        if catch.broken and time.monotonic() - self._began > _PATIENCE_S:
            return
        found = self._once(corpus_class, examples, lambda _: True)
        if found.failure is not None and is_hardening(corpus_class, found.failure):
            catch.soft.append(self.keep(corpus_class, found.failure))
            found = self._once(corpus_class, examples, lambda failure: not is_hardening(corpus_class, failure))
        catch.ran[name] = found.ran
        if found.failure is not None:
            catch.broken.append(self.keep(corpus_class, found.failure))
        if corpus_class.demand is Demand.EITHER:
            catch.left_open.append(f"{name} accepted {found.accepted} of {found.ran}")

    def _once(self, corpus_class: CorpusClass, examples: int, counts: Callable[[Failure], bool]) -> Hunt:
        found = hunt(
            corpus_class,
            self.try_file,
            examples=examples,
            seed=self.stand.seed,
            budget=self._budget(),
            counts=counts,
        )
        if found.failure is not None:
            self._shrinking_ends = min(self._shrinking_ends, time.monotonic() + _SHRINKING.seconds)
        return found

    def _budget(self) -> Budget:
        """What is left for the whole row: engines that die of everything would otherwise cost hours."""
        restarts = _SHRINKING.restarts - (self.stand.engine.starts - self._starts)
        if restarts <= 0 or time.monotonic() > self._shrinking_ends:
            return _NO_SHRINKING
        return Budget(restarts, _SHRINKING.seconds)

    def keep(self, corpus_class: CorpusClass, failure: Failure) -> CaseFailure:
        """Keep a failure as a file with its control and its sidecar, and attach all three."""
        kept_in = self.stand.directory / "kept"
        command = f"{self.stand.plan.reproduce} -k {self.stand.row.id}"
        found = keep(kept_in, corpus_class, failure, seed=self.stand.seed, command=command)
        for path in sorted(kept_in.iterdir()):
            self.stand.attach(path)
            path.unlink()
        return found

    def observe(self) -> None:
        """Observe `files`, which breaks the criterion, and `clear`, which is hardening."""
        catch = self.catch
        for name, failures, hardening in (("files", catch.broken, False), ("clear", catch.soft, True)):
            self.stand.observe(
                Cases(
                    name=name,
                    ran=dict(catch.ran),
                    required=dict(catch.required),
                    failures=failures,
                    hardening=hardening,
                    note="" if hardening else "; ".join(catch.left_open),
                )
            )


def prober_of(stand: Stand) -> Prober:
    """Tries files on the trial's engine; they lie in the row's own directory, for rows run side by side."""
    return Prober(stand.engine, stand.plan.directory / "exchange", cases=stand.directory / "cases")


def try_each(
    hunter: Hunter, corpus_class: CorpusClass, failures: Iterable[Failure | None], *, kept: int = 3
) -> Sequence[CaseFailure]:
    """Count every outcome of an exhaustive series as an example of a class; the first few failures are kept."""
    catch = hunter.catch
    ran = 0
    found: list[CaseFailure] = []
    for failure in failures:
        ran += 1
        if failure is None or len(found) == kept:
            continue
        made = hunter.keep(corpus_class, failure)
        (catch.soft if is_hardening(corpus_class, failure) else catch.broken).append(made)
        found.append(made)
    catch.ran[corpus_class.name] = catch.required[corpus_class.name] = ran
    return found
