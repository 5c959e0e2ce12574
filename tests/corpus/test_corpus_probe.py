"""Real drivers in processes of their own: crashes, hangs and memory are told apart and laid at the right file."""

import os
import sys
from pathlib import Path

import msgspec
import pytest
from corpus_engine import InProcess
from corpus_parsers import PARSERS, Strict

from conformance.corpus.safetensors.classes import RandomSource, plain
from conformance.corpus.safetensors.findings import How, judge, judge_control
from conformance.corpus.safetensors.heavy import sparse
from conformance.corpus.safetensors.hunt import Budget, hunt
from conformance.corpus.safetensors.peak_memory import PeakMemory
from conformance.corpus.safetensors.probe import Allowance, Prober, Status, unclear
from conformance.corpus.safetensors.registry import BY_NAME
from conformance.corpus.safetensors.rules import Demand
from conformance.protocol.client import Engine, Launch
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ErrorKind, TensorData

ROOT = Path(__file__).parents[2]
ENGINE = Path(__file__).with_name("corpus_engine.py")


@pytest.fixture
def start(tmp_path):
    engines = []

    def started(parser, allowance=None):
        env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
        launch = Launch([sys.executable, str(ENGINE), parser], env, cwd=tmp_path, run_dir=tmp_path)
        engines.append(Engine(launch))
        return engines[-1], Prober(engines[-1], tmp_path, allowance)

    yield started
    for engine in engines:
        engine.kill()


def example(name, seed=0):
    return BY_NAME[name].build(RandomSource(seed))


def test_plain_file_is_accepted_and_a_hole_clearly_refused(start):
    _, prober = start("Strict")
    case = example("offsets.hole")
    assert judge_control(case, prober.try_bytes(case.control)) is None
    refused = prober.try_bytes(case.data)
    assert (refused.status, refused.stage, refused.unclear, refused.excess) == (Status.REJECTED, "file.open", "", "")
    assert judge(Demand.REJECT, case, refused) is None


def test_nothing_is_left_behind(start, tmp_path):
    _, prober = start("Strict")
    prober.try_bytes(example("offsets.hole").control)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_abort_is_a_crash_and_the_next_file_gets_a_new_process(start):
    engine, prober = start("Aborting")
    case = example("shapes.dims_negative_pair")
    outcome = prober.try_bytes(case.data)
    assert outcome.status is Status.CRASHED
    assert judge(Demand.REJECT, case, outcome).how is How.CRASH
    assert judge_control(case, prober.try_bytes(case.control)) is None
    assert engine.restarts == 1


def test_hang_is_ended_and_told(start):
    _, prober = start("Hanging", Allowance(hang_floor_s=0.5, hang_factor=0.5))
    case = example("encoding.nul_padding")
    outcome = prober.try_bytes(case.data)
    assert outcome.status is Status.HUNG
    assert judge(Demand.REJECT, case, outcome).how is How.HANG


@pytest.mark.parametrize(("mebibytes", "expected"), [(0, Status.HUNG), (64, Status.ACCEPTED)])
def test_a_large_file_may_take_its_time(start, tmp_path, mebibytes, expected):
    _, prober = start("Leisurely", Allowance(hang_floor_s=0.3, hang_factor=0.3))
    path = tmp_path / "large.safetensors"
    write = sparse([("bulk", "U8", (mebibytes * 2**20,)), ("tail", "F32", (4,))], ["tail"])
    contents = write(path)
    assert prober.try_file(path, only=contents.tensors).status is expected


def test_memory_reserved_by_the_length_is_told(start):
    _, prober = start("Allocating")
    case = example("framing.length_allocatable", seed=3)
    outcome = prober.try_bytes(case.data)
    assert outcome.status is Status.REJECTED
    assert "MiB to refuse" in outcome.excess
    assert judge(Demand.REJECT, case, outcome).how is How.HANG
    assert judge_control(case, prober.try_bytes(case.control)) is None


def test_slow_refusal_is_told_after_it_was_repeated(start):
    _, prober = start("Slow")
    case = example("syntax.not_a_number")
    outcome = prober.try_bytes(case.data)
    assert "refused after 2" in outcome.excess


def test_crash_is_shrunk_across_processes(start):
    engine, prober = start("Aborting")
    hunted = hunt(BY_NAME["shapes.dim_negative"], prober.try_bytes, budget=Budget(restarts=8))
    assert hunted.failure.finding.how is How.CRASH
    assert "SIGABRT" in hunted.failure.finding.detail
    assert engine.restarts <= 9


def test_late_refusal_is_marked(start):
    _, prober = start("Lazy")
    case = example("offsets.past_end")
    found = judge(Demand.REJECT, case, prober.try_bytes(case.data))
    assert (found.how, found.late) == (How.WRONG_ACCEPT, True)


def test_handle_of_a_file_refused_late_is_closed(tmp_path):
    engine = InProcess(PARSERS["Lazy"](), tmp_path)
    outcome = Prober(engine, tmp_path).try_bytes(example("offsets.past_end").data)
    assert outcome.stage == "file.read"
    assert engine.adapter.files == {}


# --- what a refusal must say --------------------------------------------------------------------------

PATH = Path("/run/cases/ab12.safetensors")


@pytest.mark.parametrize(
    ("message", "fields", "kind", "complaint"),
    [
        (f"{PATH}: hole before tensor w", {}, ErrorKind.INVALID_FILE, ""),
        ("hole before tensor w", {"path": str(PATH)}, ErrorKind.INVALID_FILE, ""),
        ("hole before tensor w", {"files": [{"name": "ab12.safetensors"}]}, ErrorKind.INVALID_FILE, ""),
        (f"{PATH}: dtype F80", {}, ErrorKind.UNSUPPORTED_DTYPE, ""),
        ("hole before tensor w", {}, ErrorKind.INVALID_FILE, "does not name the file"),
        (f"{PATH}: hole before tensor w", {}, ErrorKind.INTERNAL, "the kind is internal"),
        (f"{PATH}: hole before tensor w", {}, ErrorKind.FILE_NOT_FOUND, "the kind is file_not_found"),
        (f"Failed to load model file {PATH}: invalid safetensors file", {}, ErrorKind.INVALID_FILE, "no cause"),
        (f"{PATH}", {}, ErrorKind.INVALID_FILE, "no cause"),
        (f"{PATH}: 17", {}, ErrorKind.INVALID_FILE, "no cause"),
        (f"thread 'main' panicked at header of {PATH}", {}, ErrorKind.INVALID_FILE, "panic"),
    ],
)
def test_refusal_is_clear_when_typed_named_and_reasoned(message, fields, kind, complaint):
    refusal = EngineRefused("file.open", kind=kind, message=message, code=-32000, fields=fields)
    found = unclear(refusal, PATH)
    assert (complaint in found) if complaint else found == ""


# --- tensors that contradict what was said of them ---------------------------------------------------


@pytest.mark.parametrize(
    "lie", [{"sha256": "0" * 64}, {"nbytes": 3}, {"shape": [1]}, {"dtype": "U8"}, {"path": "../outside"}], ids=str
)
def test_tensor_that_contradicts_its_message_is_a_misread(tmp_path, lie):
    class Careless(InProcess):
        def call(self, method, params=None, **options):
            result = super().call(method, params, **options)
            return msgspec.structs.replace(result, **lie) if isinstance(result, TensorData) else result

    base = plain(RandomSource(1))
    outcome = Prober(Careless(Strict(), tmp_path), tmp_path).try_bytes(base.data)
    assert judge(Demand.ACCEPT, base.odd(base.data, base.contents), outcome).how is How.MISREAD


def test_peak_memory_sees_what_is_already_freed():
    memory = PeakMemory(os.getpid())
    memory.begin()
    block = b"x" * (80 * 2**20)
    del block
    assert memory.growth() > 70 * 2**20
    memory.begin()
    assert memory.growth() < 16 * 2**20
    memory.close()


def test_probers_side_by_side_take_no_file_from_each_other(tmp_path):
    data = example("offsets.hole").data

    class Meddled(InProcess):
        def call(self, method, params=None, **rest):
            if method == "file.open" and self.other is not None:
                other, self.other = self.other, None
                other.try_bytes(data)
            return super().call(method, params, **rest)

    engine = Meddled(Strict(), tmp_path)
    engine.other = Prober(InProcess(Strict(), tmp_path), tmp_path, cases=tmp_path / "b")
    outcome = Prober(engine, tmp_path, cases=tmp_path / "a").try_bytes(data)
    assert outcome.status is Status.REJECTED
    assert outcome.kind == "invalid_file"
