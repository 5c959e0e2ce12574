"""Records like those of real trials: judged by the real judge, with hostile text where an engine could put it."""

from __future__ import annotations

import hashlib
import math

import msgspec

from conformance.catalogue import Row, load_catalogue
from conformance.judge import Situation, judge
from conformance.observations import (
    CaseFailure,
    Cases,
    Equal,
    Failed,
    Growth,
    LogitsDistance,
    Measured,
    Missing,
    Observation,
    Sample,
    Tokens,
    Undecided,
)
from conformance.record import (
    EngineIdentity,
    Evidence,
    Finding,
    Footer,
    Header,
    ModelIdentity,
    Record,
    RowResult,
    counts,
    encode_line,
)
from conformance.thresholds import Limit, Thresholds
from conformance.verdicts import ExitCode, Verdict, roll_up
from reports.kills import Kill, Part, Planted, Severity

HOSTILE = (
    '</script><script>alert("pwned")</script><img src=x onerror=alert(1)> \x00\x1b[31mred\x1b[0m\x07 '
    "\u202egnp.exe\u202c \ufeff\u200b & ]]> {{ 7*7 }} [bold]x[/bold] `tick` | pipe"
    "\n::error::injected\n\u05e9\u05dc\u05d5\u05dd"
)
CATALOGUE = load_catalogue()
COUNTER_EXAMPLE = (58).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}   ' + bytes(12)

_MIB = 1024 * 1024
_LIMITS = {
    "exact": Limit("of the test", "<=", limit=10.0, unit="ms"),
    "rate": Limit("of the test", ">", limit=5.0, unit="GB/s", alpha=0.001, looks=(5, 10, 20), max_sd=0.1),
    "growth": Limit("of the test", alpha=0.001, max_growth=64 * _MIB),
    "cases": Limit("of the test", min_examples=30, min_classes=3),
    "tokens": Limit("of the test", tie_margin=0.02),
    "logits": Limit("of the test", tie_margin=0.02, max_abs=1e-3, min_cosine=0.9999),
}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sample(mean: float, runs: int = 20, spread: float = 0.02) -> Sample:
    values = [round(mean * (1 + spread * math.sin(2.4 * run)), 4) for run in range(runs)]
    return Sample(name="rate", values=values, unit="GB/s", context={"pageable": 3.1, "link_share": 0.21})


def growth(step: int, one_off: int = 8 * _MIB) -> Growth:
    account = [900 * _MIB + min(i, 10) * 4 * _MIB + (i * step) for i in range(120)]
    witness = [1_200 * _MIB + min(i, 12) * 4 * _MIB + (i * step // (2 * _MIB)) * 2 * _MIB for i in range(120)]
    witness = [value + (one_off if i > 60 else 0) for i, value in enumerate(witness)]
    return Growth(name="growth", account=account, witness=witness, witness_name="NVML", warm_up=20)


def tokens(first_difference: int | None, margin: float = 1.7) -> Tokens:
    expected = [(i * 7919 + 13) % 512 for i in range(96)]
    observed = list(expected)
    if first_difference is not None:
        observed[first_difference:] = [(token + 5) % 512 for token in observed[first_difference:]]
    margins = [2.5] * 96
    if first_difference is not None:
        margins[first_difference] = margin
    reanchored = expected[first_difference + 1 :] if first_difference is not None and margin < 0.02 else None
    return Tokens(name="tokens", expected=expected, observed=observed, margins=margins, reanchored=reanchored)


def cases(failures: bool) -> Cases:
    ran = {"hole": 30, "overlap": 30, "reversed": 30, "past the end": 30, "not starting at 0": 30}
    failure = CaseFailure(
        case_class="not starting at 0",
        how="wrong_accept",
        detail=f"accepted; tensor 'a' read as zeros; the engine says {HOSTILE!r}",
        file="counterexamples/F-PARSE-041/9c1e.safetensors",
        sha256=hashlib.sha256(COUNTER_EXAMPLE).hexdigest(),
    )
    return Cases(name="cases", ran=ran, required=dict.fromkeys(ran, 30), failures=[failure] if failures else [])


SPECIAL: dict[str, list[Observation]] = {
    "F-BUILD-001": [Equal(name=name, expected=True, observed=True) for name in ("starts", "cuda")],
    "F-CUDA-012": [
        Equal(
            name="error",
            expected={"kind": "device_not_found", "fields": {"index": 99, "count": 1}},
            observed={"kind": "internal", "fields": {"index": 99}, "text": HOSTILE},
        )
    ],
    "F-CUDA-020": [growth(0)],
    "F-MEM-029": [sample(4.2)],
    "F-MEM-030": [sample(12.6, runs=10)],
    "F-MEM-032": [growth(256 * 1024)],
    "F-MEM-033": [sample(5.02, spread=0.03)],
    "F-PARSE-041": [cases(failures=True)],
    "F-PARSE-042": [cases(failures=False)],
    "F-PARSE-043": [Failed(name="crash", how="SIGBUS", detail=f"the driver died reading a file cut in use\n{HOSTILE}")],
    "F-DTYPE-046": [
        Equal(name=f"roundtrip/{dtype}", expected=sha(dtype), observed=sha(dtype)) for dtype in ("F32", "F16", "BF16")
    ],
    "F-DTYPE-049": [
        Equal(name="shape", expected={"a.weight": [3, 4, 5], "b": []}, observed={"a.weight": [3, 5, 4], "b": [1]}),
        Equal(name="hidden", expected=[1, 2, 3], observed=[1, 2], hardening=True, note="Hardening: all of them."),
    ],
    "F-QUAL-066": [tokens(None)],
    "F-QUAL-074": [LogitsDistance(name="logits", positions=4, max_abs=2e-5, min_cosine=0.9999999,
                                  argmax_expected=[1, 2, 3, 4], argmax_observed=[1, 2, 3, 4], margins=[2.0] * 4)],
    "F-QUAL-075": [tokens(70)],
    "F-QUAL-076": [tokens(41, margin=0.004)],
    "F-QUAL-077": [Missing(name="peer", reason="no peer installed: llama.cpp")],
    "F-PERF-081": [Undecided(name="rate", reason="another process used the GPU during 7 of 20 runs")],
    "F-PERF-086": [Measured(name="exact", value=4.25, unit="ms")],
}  # fmt: skip
SELDOM: list[Observation] = [Equal(name="right", expected="hello, world", observed="hello, world")]


def result_of(row: Row, *, gpu: bool = True, reference: bool = False) -> RowResult:
    observations = SPECIAL.get(row.id, SELDOM)
    names = tuple(observation.name.split("/")[0] for observation in observations)
    known = msgspec.structs.replace(row, observes=names, observes_on_gpu=())
    thresholds = Thresholds({row.id: {**_LIMITS, "rate": _LIMITS["rate"]}}, sha("thresholds"))
    verdict = judge(known, observations, thresholds, Situation(gpu=gpu, is_reference=reference))
    return RowResult(
        row.id,
        verdict.verdict,
        reason=verdict.reason,
        rehearsed=verdict.rehearsed,
        observations=observations,
        findings=verdict.findings,
        evidence=_evidence(row),
        duration_s=0.03 * row.number,
        seed=row.number,
        weights="fixture-qwen2 (fixture)" if row.number > 55 else "",
        reproduce=f"falsify run --engine 'engines/naïve.toml' --seed {row.number} {row.id}",
    )


def _evidence(row: Row) -> list[Evidence]:
    if row.id == "F-PARSE-041":
        path = "counterexamples/F-PARSE-041/9c1e.safetensors"
        digest = hashlib.sha256(COUNTER_EXAMPLE).hexdigest()
        return [Evidence(path, digest, len(COUNTER_EXAMPLE)), Evidence(f"stderr {HOSTILE}.txt", sha("e"), 81_234)]
    return [Evidence(f"{row.id}/trace.jsonl", sha(row.id), 1_024 * row.number)] if row.number % 3 == 0 else []


def header(*, rehearsal: bool = False, selected: list[str] | None = None, dirty: bool = False) -> Header:
    ids = [row.id for row in CATALOGUE.rows]
    return Header(
        schema="1.0",
        trial_id="2026-11-24T14-03-27Z-4f1c",
        started="2026-11-24T14:03:27Z",
        engine=EngineIdentity(
            name="naive-engine",
            version="0.3.1+g4f1c2aa",
            manifest="engines/naïve.toml",
            manifest_sha256=sha("manifest"),
            capabilities=["build", "device", "storage", "file", "model", "generate"],
            precision="ieee_f32",
        ),
        model=ModelIdentity("fixture-qwen2", "fixture", sha("model"), 11_800_000, sha("goldens")),
        rows=ids,
        selected=ids if selected is None else selected,
        rehearsal=rehearsal,
        seed=20261124,
        revision="3329a5c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6",
        revision_dirty=dirty,
        catalogue_sha256=CATALOGUE.sha256,
        thresholds_sha256=sha("thresholds"),
        environment={
            "gpus": [] if rehearsal else [{"name": "NVIDIA H100 80GB HBM3", "driver": "580.65.06", "power_cap_w": 700}],
            "cpu": {"model": "AMD EPYC 9654", "cores": 16},
            "system": "Linux-6.8.0-60-generic-x86_64",
            "load_average": [0.4, 0.3, 0.2],
            "python": "3.12.11",
            "packages": {"torch": "2.11.0+cu130", "safetensors": "0.6.2"},
            "odd": HOSTILE,
        },
        command=["falsify", "run", "--engine", "engines/naïve.toml"],
    )


def finished(head: Header, rows: list[RowResult], exit_code: ExitCode | None = None) -> Record:
    verdict = roll_up(row.verdict for row in rows)
    guess = {Verdict.FALSIFIED: 1, Verdict.ERROR: 4, Verdict.UNTESTED: 3, Verdict.INCONCLUSIVE: 3}.get(verdict, 0)
    code = ExitCode(guess) if exit_code is None else exit_code
    return Record(head, rows, Footer("completed", "2026-11-24T14:21:02Z", 1055.2, code, counts(rows), verdict))


def mixed_record(*, dirty: bool = True) -> Record:
    rows = [result_of(row) for row in CATALOGUE.rows]
    broken = RowResult(
        "F-LOAD-060", Verdict.ERROR, reason="the harness failed: OSError: No space left on device", duration_s=0.2,
        findings=[Finding("contract", Verdict.ERROR, "the catalogue's contract", "did not observe 'residence'")],
    )  # fmt: skip
    return finished(header(dirty=dirty), [broken if row.id == broken.id else row for row in rows])


def survived_record() -> Record:
    findings = [Finding("right", Verdict.CORROBORATED, "equal to the witness")]
    rows = [RowResult(row.id, Verdict.CORROBORATED, observations=SELDOM, findings=findings, duration_s=0.2,
                      weights="fixture-qwen2") for row in CATALOGUE.rows]  # fmt: skip
    return finished(header(), rows)


def rehearsal_record(*, failing: bool = False) -> Record:
    healthy = {"F-MEM-032", "F-CUDA-012", "F-MEM-029"} if failing else set()
    rows = []
    for row in CATALOGUE.rows:
        result = result_of(row, gpu=False)
        if result.verdict is not Verdict.CORROBORATED and row.id not in healthy:
            plain = judge(msgspec.structs.replace(row, observes=("right",)), SELDOM, Thresholds({}, ""),
                          Situation(gpu=False, is_reference=True))  # fmt: skip
            result = RowResult(row.id, plain.verdict, reason=plain.reason, rehearsed=plain.rehearsed,
                               observations=SELDOM, findings=plain.findings)  # fmt: skip
        rows.append(result)
    return finished(header(rehearsal=True), rows, ExitCode.FALSIFIED if failing else ExitCode.OPEN)


def truncated_record() -> Record:
    whole = mixed_record()
    rows = [
        row if i < 40 else RowResult(row.id, Verdict.UNTESTED, reason="no record") for i, row in enumerate(whole.rows)
    ]
    return Record(whole.header, rows, None)


def severity() -> Severity:
    """A small kill matrix: a fault seen for what it is, one that was not, one seen in rehearsal only, and an alarm."""
    stale = Planted("stale_cache", "memory", "the cache of the last prompt", "vllm 1", "gpu", ("F-MEM-029",),
                    ("F-MEM-029",), (Kill("F-MEM-029", "rate", "falsified"),), ("F-MEM-030",), True)  # fmt: skip
    idle = Planted("idle", "speed", HOSTILE, HOSTILE, "gpu", ("F-MEM-031",), reasons=(f"unseen: {HOSTILE}",))
    loud = Planted("loud", "memory", "breaks all", "", "cpu", ("F-MEM-032",), ("F-MEM-032",),
                   (Kill("F-MEM-032", "growth", "falsified"),), reasons=("smoke fails with it",))  # fmt: skip
    slow = Planted("slow", "memory", "x", "", "cpu", ("F-MEM-029", "F-MEM-033"), ("F-MEM-029", "F-MEM-033"),
                   (Kill("F-MEM-033", "rate", "rehearsed: failed"),), (), True)  # fmt: skip
    part = Part(
        "gpu", ("NVIDIA H100",), ("git:1",), {"F-MEM-029": "CORROBORATED", "F-MEM-030": "FALSIFIED"}, ("F-MEM-030",)
    )
    return Severity((stale, idle, loud, slow), (part,))


def encode_record(record: Record) -> bytes:
    lines = [encode_line(record.header), *map(encode_line, record.rows)]
    return b"".join([*lines, encode_line(record.footer)] if record.footer else lines)
