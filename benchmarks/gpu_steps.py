"""The steps that `gpu_records.py` can take: what each runs, how long it should take, and how one cut short goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FALSIFY = ("-m", "conformance")
WORKERS = ("-n", "8", "--require-gpu")
PYTEST = ("-m", "pytest", "-q", "-p", "no:benchmark", "-p", "no:cacheprovider", "-n", "0")
RECORD_ENDS = frozenset({0, 1, 3})
"""A trial with these has a whole record: open, falsified, or something untested or undecided."""


@dataclass(frozen=True)
class Step:
    """One thing to run, by Python or, where `program` says so, by another program.

    Attributes:
        name: Its id; `group-rest` is a step of a group.
        predicted: Seconds it should take on one H200, from `docs/results/h200/first` and what its parts do; a guess
            until it was measured.
        seconds: The most it may take.
        words: What follows the program; `{out}` is the step's directory, `{seconds}` after how long it begins nothing
            more.
        goes_on: Whether a call with what an earlier one left does only the rest.
        done: Exit statuses with which it is finished and need not be run again.
        program: Empty: this Python.
        anew: Whether it is run in every call, for what it leaves on the machine.
        binary: Whether what it leaves in `lib/` is binary, and comes back as an archive of its own.
    """

    name: str
    predicted: float
    seconds: float
    words: tuple[str, ...]
    goes_on: bool = False
    done: frozenset[int] = frozenset({0, 1})
    program: str = ""
    anew: bool = False
    binary: bool = False


KILLS = (
    "copies-in-small-pieces", "ring-of-pageable-slabs", "every-copy-awaited", "copies-block",
    "constants-sent-with-every-token", "first-token-compiles", "forty-milliseconds-a-token", "weights-held-twice",
    "device-idles", "eight-milliseconds-a-token", "full-device-is-an-internal-error",
    "failure-for-want-of-memory-is-remembered", "full-device-aborts",
)  # fmt: skip
"""What must kill F-MEM-029, F-MEM-034, F-PERF-082, 084, 086, 088, 089, 090 and F-ERR-092."""
CONTROLS = (
    "Hoards", "IgnoresPinned", "LeaksDevices", "LeaksGenerations", "LeaksUploads", "NoCacheInSilence",
    "RefillsTooEarly", "SlowDecode", "SlowFirstToken", "SlowLink", "SlowLoad", "WaitsForEachCopy",
)  # fmt: skip
PREPARE = """
from conformance.corpus.geometry import geometry_checkpoint
from conformance.corpus.models import FIXTURE
from conformance.corpus.variants import derive
geometry_checkpoint('F32')
derive(geometry_checkpoint('BF16'), 'sharded')
for variant in ('f32', 'bf16', 'sharded'):
    derive(FIXTURE, variant)
"""
REPEATED = ("benchmarks/repeat_trials.py", "--times", "1", "--keep", "{out}", "--out", "{out}/repeats.json")


def _repeats(name: str, count: int, predicted: float, *options: str) -> list[Step]:
    words = (*REPEATED, *options, "--", *WORKERS)
    done = frozenset({0})
    return [Step(f"{name}-{number}", predicted, 1.5 * predicted, words, done=done) for number in range(1, count + 1)]


def _faults(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--fault", name))


def _calibration(part: str, predicted: float, *options: str) -> Step:
    words = (*FALSIFY, "calibrate", "--part", part, "--replays", "0", "--out", "{out}")
    return Step(
        f"calibration-{part}", predicted, predicted + 60,
        (*words, "--seconds", "{seconds}", "--pool", f"{{out}}/gpu-pool-{part}.jsonl", *options),
        goes_on=True, done=frozenset({0}),
    )  # fmt: skip


STEPS = (
    Step("prepare", 60, 200, ("-c", PREPARE), anew=True),
    Step("trial", 240, 480, (*FALSIFY, "run", *WORKERS, "--out", "{out}"), done=RECORD_ENDS),
    Step(
        "kills", 500, 570,
        (*FALSIFY, "severity", "--machine", "gpu", "-n", "8", "--limit", "260", "--out", "{out}", *_faults(KILLS)),
        goes_on=True,
    ),
    Step("memcheck", 180, 460, ("benchmarks/memcheck.py", "{out}", "--seconds", "130")),
    Step(
        "bench", 150, 300,
        ("benchmarks/bench.py", "--parts", "decode,load,vram,start", "--seconds", "60", "--json", "{out}/bench.json"),
    ),
    Step(
        "peers", 260, 420,
        ("benchmarks/bench.py", "--parts", "decode,load,peer_load,peer_eager,peer_compiled,peer_llama_cpp",
         "--seconds", "90", "--json", "{out}/peers.json"),
    ),
    Step("profile", 60, 150, ("benchmarks/decode_profile.py", "{out}")),
    Step("decode", 120, 180,
         ("benchmarks/decode_gpu.py", "F32", "BF16", "--seconds", "50", "--json", "{out}/steps.jsonl")),
    Step("tests", 200, 400, (*PYTEST, "tests/gpu")),
    *(
        Step(f"controls-{driver}", 60, 200, (*PYTEST, "-m", "gpu", "tests/checks/test_controls.py", "-k", driver))
        for driver in CONTROLS
    ),
    *_repeats("untimed", 5, 130, "--untimed"),
    *_repeats("whole", 2, 240),
    Step("healthy", 540, 570, ("-m", "conformance.faults.surviving", "{out}", "-n", "1"), goes_on=True),
    _calibration("timed", 480, "--seed", "1"),
    _calibration("grown", 215, "--seed", "2", "--side-by-side", "12"),
    Step(
        "calibration-cpu", 350, 540,
        ("benchmarks/calibration_pools.py", "{out}", "--collectors", "8", "--seconds", "{seconds}"),
        goes_on=True, done=frozenset({0}),
    ),
    Step("transformers", 330, 480, (*FALSIFY, "run", *WORKERS, "--engine", "transformers", "--out", "{out}"),
         done=RECORD_ENDS),
    Step(
        "llama_cpp-build", 480, 570, ("benchmarks/llama_cpp_cuda.sh", "{out}", "{seconds}"),
        goes_on=True, done=frozenset({0}), program="bash", anew=True, binary=True,
    ),
    Step("llama_cpp-rows", 60, 200,
         (*FALSIFY, "run", "--require-gpu", "-k", "F-QUAL-076", "-k", "F-PERF-090", "--out", "{out}"),
         done=RECORD_ENDS),
)  # fmt: skip


def chosen(names: Sequence[str]) -> list[Step]:
    """Steps by name or by group, in the order asked for.

    Raises:
        KeyError: no step and no group has this name.
    """
    found: list[Step] = []
    for name in names:
        these = [step for step in STEPS if step.name == name or step.name.startswith(f"{name}-")]
        if not these:
            raise KeyError(name)
        found += these
    return found
