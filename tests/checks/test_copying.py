"""F-MEM-034: what each way of copying makes of the row, from traces; and that the row's code runs on an engine."""

import pytest
from control_stands import judged, stand_of

from checks.support.copying import LONG, SHORT, observe_copies, observe_trace
from conformance.probes.copies import parse_trace
from conformance.trial.stand import NotTried
from conformance.verdicts import Verdict

MIB = 1024 * 1024


def lines_of(begin, *, name="cudaMemcpyAsync_v3020", source=2, asynchronous=1, waits=False, nbytes=MIB):
    """Eight copies of `nbytes` from `begin` on, 100 ns apart."""
    lines = []
    for index in range(8):
        number, at = begin + index, begin + 100 * index
        lines += [f"call {number} {at} {at + 1} 1 {name}"]
        lines += [f"copy {number} 1 {source} 3 {asynchronous} {nbytes} {at + 2} {at + 40} 7"]
        if waits:
            lines += [f"call {number} {at + 3} {at + 41} 1 cudaStreamSynchronize_v3020"]
    return lines


def findings(tmp_path, trace_lines, *, decode=0, sent=8 * MIB):
    lines = ["ready", *trace_lines, f"copy 9000 1 2 3 1 {decode} 6500 6600 7"]
    spans = {"upload": (1000, 2000), "decode_short": (5000, 6000), "decode_long": (6000, 7000)}
    with stand_of(tmp_path, "Healthy", "F-MEM-034") as stand:
        observe_trace(stand, parse_trace(lines).to_device(), {"upload": sent}, spans)
        judgement = judged(stand)
    failed = {each.name: each.verdict for each in judgement.findings if each.verdict != Verdict.CORROBORATED}
    return judgement.verdict, failed


def test_pinned_asynchronous_copies_survive(tmp_path):
    assert findings(tmp_path, lines_of(1000)) == (Verdict.CORROBORATED, {})


@pytest.mark.parametrize(
    ("way", "observation"),
    [
        ({"source": 1}, "pinned/upload"),
        ({"name": "cudaMemcpy_v3020", "asynchronous": 0}, "asynchronous/upload"),
        ({"waits": True}, "awaited/upload"),
    ],
)
def test_each_way_of_copying_synchronously_is_a_warning(tmp_path, way, observation):
    assert findings(tmp_path, lines_of(1000, **way)) == (Verdict.WARNING, {observation: Verdict.WARNING})


def test_weights_that_are_copied_with_each_token_are_a_warning(tmp_path):
    verdict, failed = findings(tmp_path, lines_of(1000), decode=(LONG - SHORT) * MIB)

    assert (verdict, failed) == (Verdict.WARNING, {"decode_step": Verdict.WARNING})


def test_bytes_that_went_unseen_decide_nothing(tmp_path):
    verdict, failed = findings(tmp_path, lines_of(1000), sent=16 * MIB)

    assert (verdict, failed) == (Verdict.INCONCLUSIVE, {"seen/upload": Verdict.INCONCLUSIVE})


def test_a_trace_with_lost_records_decides_nothing(tmp_path):
    assert findings(tmp_path, ["lost 3", *lines_of(1000)])[0] is Verdict.INCONCLUSIVE


@pytest.mark.slow
def test_an_engine_that_never_initialises_cuda_leaves_the_row_untested(tmp_path):
    with stand_of(tmp_path, "Healthy", "F-MEM-034") as stand, pytest.raises(NotTried, match="no witness of copies"):
        observe_copies(stand)
