from dataclasses import replace

import pytest
from corpus_engine import InProcess
from corpus_parsers import BROKEN, PARSERS, Bad, NoHoles, Refusing, Scrubbing, Strict

from conformance.corpus.safetensors.classes import RandomSource, sha256
from conformance.corpus.safetensors.findings import How, judge
from conformance.corpus.safetensors.hunt import LONG_EXAMPLES, Budget, hunt
from conformance.corpus.safetensors.oracle import official
from conformance.corpus.safetensors.probe import Outcome, Prober, Status
from conformance.corpus.safetensors.registry import BY_NAME, CLASSES
from conformance.corpus.safetensors.rules import Demand


def prober(parser, tmp_path):
    return Prober(InProcess(parser, tmp_path), tmp_path)


def survivors(classes, tmp_path, **options):
    probe = prober(Strict(), tmp_path)
    return {found.name: hunt(found, probe.try_bytes, **options) for found in classes}


def test_strict_parser_survives_a_cut_through_all_classes(tmp_path):
    for name, hunted in survivors(CLASSES[::9], tmp_path).items():
        assert hunted.failure is None, (name, hunted.failure)
        assert hunted.ran == 30


@pytest.mark.slow
def test_strict_parser_survives_every_class(tmp_path):
    for name, hunted in survivors(CLASSES, tmp_path).items():
        assert hunted.failure is None, (name, hunted.failure)
        assert hunted.ran == 30


def omniscient(found):
    """A class and a judge that always answers as the class demands."""
    right = {}

    def build(source):
        case = found.build(source)
        refused = Outcome(Status.REJECTED, "file.open", 0.0, kind="invalid_file", message="hole")
        right[case.control] = Outcome(Status.ACCEPTED, "file.read", 0.0, contents=case.control_contents)
        right[case.data] = refused
        if found.demand is Demand.ACCEPT:
            right[case.data] = replace(right[case.control], contents=case.readings[0])
        return case

    return replace(found, build=build), right.__getitem__


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_long_profile_finds_three_hundred_distinct_examples_of_every_class(part):
    for found in CLASSES[part::8]:
        watched, judge_file = omniscient(found)
        hunted = hunt(watched, judge_file, examples=LONG_EXAMPLES)
        assert hunted.failure is None
        assert hunted.ran == LONG_EXAMPLES, found.name


def test_examples_that_ran_are_distinct(tmp_path):
    probe = prober(Strict(), tmp_path)
    tried = []

    def record(data):
        tried.append(sha256(data))
        return probe.try_bytes(data)

    hunted = hunt(BY_NAME["framing.length_as_text"], record, examples=30)
    assert hunted.ran == 30
    assert len(tried) == len(set(tried)) == hunted.tried


def test_failure_is_shrunk_to_the_smallest_hole(tmp_path):
    hunted = hunt(BY_NAME["offsets.hole"], prober(NoHoles(), tmp_path).try_bytes, seed=3)
    assert hunted.failure.finding.how is How.WRONG_ACCEPT
    assert not hunted.failure.of_control
    case = hunted.failure.case
    assert len(case.data) == len(case.control) + 1
    assert len(case.control_contents.tensors) == 2
    assert not official(case.data).accepted


def test_refusing_everything_fails_on_the_control(tmp_path):
    hunted = hunt(BY_NAME["offsets.hole"], prober(Refusing(), tmp_path).try_bytes)
    assert hunted.failure.of_control
    assert hunted.failure.finding.how is How.WRONG_REJECT
    assert official(hunted.failure.data).accepted


def test_same_seed_finds_the_same_file(tmp_path):
    found = [
        hunt(BY_NAME["values.special"], prober(Scrubbing(), tmp_path).try_bytes, seed=11).failure.data for _ in range(2)
    ]
    assert found[0] == found[1]


def test_budget_of_restarts_ends_shrinking_with_a_file_that_fails():
    crashes = []

    def crash(data):
        if official(data).accepted:
            return Outcome(Status.ACCEPTED, "file.read", 0.0, contents=official(data).contents)
        if int(sha256(data)[:8], 16) % 3:
            return Outcome(Status.REJECTED, "file.open", 0.0, kind="invalid_file")
        crashes.append(data)
        return Outcome(Status.CRASHED, "file.open", 0.0, message="SIGSEGV")

    hunted = hunt(BY_NAME["offsets.overlap"], crash, budget=Budget(restarts=3))
    assert len(crashes) == 3
    assert hunted.failure.finding.how is How.CRASH
    assert hunted.failure.data in crashes


def test_trouble_of_the_harness_is_raised_at_once_and_is_no_finding():
    asked = []

    def broken(data):
        asked.append(data)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        hunt(BY_NAME["offsets.hole"], broken)
    assert len(asked) == 1


def test_open_classes_tell_how_often_they_were_accepted(tmp_path):
    probe = prober(Strict(), tmp_path)
    assert hunt(BY_NAME["entries.unknown_field"], probe.try_bytes).accepted == 30
    assert hunt(BY_NAME["metadata.null"], probe.try_bytes).accepted == 0


def test_control_declined_for_its_dtype_proves_nothing(tmp_path):
    class NoSubByte(Strict):
        kind = "unsupported_dtype"

        def size(self, dtype, shape):
            if dtype.startswith(("F4", "F6")):
                raise Bad(f"dtype {dtype} is not supported")
            return super().size(dtype, shape)

    hunted = hunt(BY_NAME["shapes.half_filled_byte"], prober(NoSubByte(), tmp_path).try_bytes)
    assert hunted.failure is None
    assert hunted.ran == 0
    assert hunted.vacuous >= 30


@pytest.mark.slow
def test_every_class_is_failed_by_a_broken_parser(tmp_path):
    alive = {found.name: (found, [found.build(RandomSource(at)) for at in range(12)]) for found in CLASSES}
    for parser in BROKEN:
        probe = prober(parser(), tmp_path)
        for name, (found, cases) in list(alive.items()):
            findings = (judge(found.demand, case, probe.try_bytes(case.data)) for case in cases)
            if any(finding and finding.how is not How.UNCLEAR_ERROR for finding in findings):
                del alive[name]
    assert not alive


KILLS = [
    ("Naive", "truncation.in_first_tensor", How.WRONG_ACCEPT),
    ("NoTail", "offsets.trailing_bytes", How.WRONG_ACCEPT),
    ("NoHoles", "offsets.range_shared", How.WRONG_ACCEPT),
    ("CString", "encoding.nul_then_header", How.WRONG_ACCEPT),
    ("Aligned", "containers.header_length_odd", How.MISREAD),
    ("Length32", "framing.length_above_32_bits", How.WRONG_ACCEPT),
    ("Wrapping", "shapes.elements_wrap", How.WRONG_ACCEPT),
    ("WrappingBits", "shapes.bytes_wrap", How.WRONG_ACCEPT),
    ("Narrow", "shapes.dim_above_32_bits", How.WRONG_ACCEPT),
    ("Floats", "shapes.dim_fraction", How.WRONG_ACCEPT),
    ("FileOrder", "containers.payload_reversed", How.MISREAD),
    ("NoDunder", "names.like_metadata", How.MISREAD),
    ("Normalising", "names.long", How.MISREAD),
    ("NoEmpty", "containers.zero_sized_between", How.WRONG_REJECT),
    ("Padded", "containers.header_length_odd", How.WRONG_REJECT),
    ("Stringly", "metadata.value_number", How.WRONG_ACCEPT),
    ("Scrubbing", "values.special", How.MISREAD),
    ("LastWins", "entries.name_twice_elsewhere", How.WRONG_ACCEPT),
    ("EmptyOnError", "foreign.gguf", How.WRONG_ACCEPT),
    ("Lazy", "offsets.past_end", How.WRONG_ACCEPT),
    ("Vague", "offsets.past_end", How.UNCLEAR_ERROR),
    ("Nameless", "offsets.past_end", How.UNCLEAR_ERROR),
    ("Internal", "offsets.past_end", How.UNCLEAR_ERROR),
    ("OnlyWeights", "dtypes.i16", How.WRONG_REJECT),
]


@pytest.mark.parametrize(("parser", "name", "how"), KILLS, ids=str)
def test_hunt_tells_how_a_broken_parser_fails(parser, name, how, tmp_path):
    hunted = hunt(BY_NAME[name], prober(PARSERS[parser](), tmp_path).try_bytes, budget=Budget(seconds=1.0))
    assert hunted.failure is not None
    assert hunted.failure.finding.how is how


def test_a_mild_failure_hides_no_grave_one(tmp_path):
    class VagueNoHoles(NoHoles):
        message = "{path}: failed to load invalid file"

        def follows(self, _name, begin, _end, cursor):
            if (begin - cursor) % 2:
                raise Bad("hole")

    try_file = prober(VagueNoHoles(), tmp_path).try_bytes
    found = BY_NAME["offsets.hole"]
    grave = hunt(found, try_file, counts=lambda failure: failure.finding.how is not How.UNCLEAR_ERROR)
    mild = hunt(found, try_file, counts=lambda failure: failure.finding.how is How.UNCLEAR_ERROR)
    assert grave.failure.finding.how is How.WRONG_ACCEPT
    assert mild.failure.finding.how is How.UNCLEAR_ERROR
