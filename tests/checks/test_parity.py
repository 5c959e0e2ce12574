"""F-PERF-090: side by side with a peer that is another process behind the same protocol."""

import pytest
from control_stands import judged, manifest_of, stand_of

from checks.support.parity import cases_of_peer, observe_parity
from checks.support.quality import golden_cases
from conformance.corpus.models import resolve_model
from conformance.trial.stand import NotTried
from conformance.verdicts import Verdict

LENGTHS = (3, 35)
ATTEMPTS = 4


def parity(tmp_path, driver, peer):
    with stand_of(tmp_path, driver, "F-PERF-090", peer=peer) as stand:
        observe_parity(stand, resolve_model("random").directory, device="cpu", lengths=LENGTHS)
        (sample,) = stand.observations
        return sample, judged(stand).findings[0]


@pytest.fixture(autouse=True)
def short_prompts(monkeypatch):
    monkeypatch.setattr("checks.support.pool._IDS", 200)


@pytest.mark.slow
def test_an_engine_much_slower_than_its_peer_is_a_warning(tmp_path):
    sample, finding = parity(tmp_path, "SlowDecode", manifest_of(tmp_path, "Steady"))

    assert finding.verdict is Verdict.WARNING, finding
    assert max(sample.values) < 0.8
    assert sample.note.startswith("Steady ")
    assert sample.context["engine_tok_s"] < 50 < sample.context["peer_tok_s"]


@pytest.mark.slow
def test_an_engine_much_faster_than_its_peer_which_reads_gguf_survives(tmp_path):
    # Where the tests' neighbours are busy, values spread too far to decide; a quiet moment comes.
    for _ in range(ATTEMPTS):
        sample, finding = parity(tmp_path, "Steady", manifest_of(tmp_path, "SlowDecode", formats=["gguf"]))
        if finding.verdict is not Verdict.INCONCLUSIVE:
            break

    assert finding.verdict is Verdict.CORROBORATED, finding
    assert len(sample.values) == 5
    assert min(sample.values) > 1.0


def test_without_a_peer_the_row_says_how_to_name_one(tmp_path):
    with (
        stand_of(tmp_path, "Healthy", "F-PERF-090", peer=tmp_path / "absent.toml") as stand,
        pytest.raises(NotTried, match="peer not installed.*--peer"),
    ):
        observe_parity(stand, resolve_model("random").directory, device="cpu")


def test_a_peer_that_does_not_start_is_not_held_against_the_engine(tmp_path):
    absent = tmp_path / "absent.toml"
    absent.write_text('[engine]\nname = "absent"\n\n[driver]\ncommand = ["/nonexistent/driver"]\n')

    with (
        stand_of(tmp_path, "Healthy", "F-PERF-090", peer=absent) as stand,
        pytest.raises(NotTried, match="peer absent: .*nonexistent"),
    ):
        observe_parity(stand, resolve_model("random").directory, device="cpu")


def test_who_begins_changes_with_every_pair(monkeypatch):
    from checks.support import parity as module

    asked = []
    monkeypatch.setattr(module, "decode_rate", lambda engine, model, short, long: (asked.append(engine) or 2.0, []))
    mine, other = module.Side("mine", None), module.Side("other", None)

    assert module._pair(mine, other, 0, LENGTHS) == module._pair(mine, other, 1, LENGTHS) == (2.0, 2.0)
    assert asked == ["mine", "other", "other", "mine"]


def test_a_peer_that_is_not_installed_says_what_to_install(tmp_path):
    lacking = tmp_path / "lacking.toml"
    lacking.write_text(
        '[engine]\nname = "lacking"\nrequires = ["no_such_module"]\nextra = "llama-cpp"\n\n[driver]\ncommand = ["x"]\n'
    )

    with (
        stand_of(tmp_path, "Healthy", "F-PERF-090", peer=lacking) as stand,
        pytest.raises(NotTried, match=r"no module 'no_such_module'.*pip install 'falsify-inference\[llama-cpp\]'"),
    ):
        observe_parity(stand, resolve_model("random").directory, device="cpu")


def test_a_peer_that_reads_gguf_confirms_the_golden_decisions(tmp_path):
    peer = manifest_of(tmp_path, "Steady", formats=["gguf"])
    with stand_of(tmp_path, "Healthy", "F-QUAL-076", peer=peer) as stand:
        cases = golden_cases(stand)[:2]

        assert [case.name for case in cases_of_peer(stand, cases)] == [case.name for case in cases]


def test_a_peer_that_reads_no_gguf_confirms_nothing(tmp_path):
    peer = manifest_of(tmp_path, "Steady")
    with (
        stand_of(tmp_path, "Healthy", "F-QUAL-076", peer=peer) as stand,
        pytest.raises(NotTried, match="peer Steady does not read GGUF"),
    ):
        cases_of_peer(stand, golden_cases(stand)[:1])


def test_a_peer_that_leaves_the_golden_run_everywhere_confirms_nothing(tmp_path, monkeypatch):
    from checks.support import parity as module

    monkeypatch.setattr(module, "decisions_of", lambda answer: [-1])
    peer = manifest_of(tmp_path, "Steady", formats=["gguf"])
    with (
        stand_of(tmp_path, "Healthy", "F-QUAL-076", peer=peer) as stand,
        pytest.raises(NotTried, match="answers no case as the golden run"),
    ):
        cases_of_peer(stand, golden_cases(stand)[:1])


@pytest.mark.slow
def test_llama_cpp_decodes_beside_the_engine(tmp_path):
    pytest.importorskip("llama_cpp")
    sample, _ = parity(tmp_path, "Steady", "llama_cpp")

    assert sample.note.startswith("llama_cpp llama-cpp-python")
    assert min(sample.values) > 0
