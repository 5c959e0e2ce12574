"""A gate file is refused unless every entry can match something and says why it is there."""

import pytest
import small_world as world

from conformance.gate.policy import AllowedUntested, BrokenGate, KnownFailure, Policy, load_policy

KNOWN = (
    '[[known_failure]]\nrow = "F-A-001"\nobservations = ["right"]\nreason = "being mended"\n'
    'issue = "https://example.org/issues/7"\nexpires = 2026-12-01\n'
)
UNTESTED = '[[untested]]\nrow = "F-A-002"\nreason = "no peer installed"\nwhy = "the runner has none"\n'


@pytest.fixture
def read(tmp_path):
    def load(text):
        path = tmp_path / "gate.toml"
        path.write_text(text)
        return load_policy(path, world.catalogue())

    return load


def test_an_empty_file_excuses_nothing(read):
    assert read("") == Policy()


def test_a_whole_file_is_read(read):
    policy = read(f'warnings = "fail"\nrequire_gpu = true\nrequired = ["F-A-003"]\n{KNOWN}{UNTESTED}')

    assert policy.warnings == "fail"
    assert policy.required == ("F-A-003",)
    assert policy.known_failure[0].expires.isoformat() == "2026-12-01"
    assert policy.untested[0].why == "the runner has none"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('required = ["F-A-999"]', "matches no row"),
        (KNOWN.replace("F-A-001", "f-a-001"), "matches no row"),
        (UNTESTED.replace("F-A-002", "F-A"), "matches no row"),
        (KNOWN + KNOWN, "named twice"),
        ('required = ["F-A-002"]\n' + UNTESTED, "named twice"),
        ('required = ["F-A-001"]\n' + KNOWN, "named twice"),
        (KNOWN.replace("https://example.org/issues/7", "later"), "must be a link"),
        (KNOWN.replace("https://example.org/issues/7", "https://"), "must be a link"),
        (KNOWN.replace("being mended", " "), "needs a `reason`"),
        (KNOWN.replace('["right"]', "[]"), "needs the `observations`"),
        (KNOWN.replace('["right"]', '["wrong"]'), "matches no observation"),
        (KNOWN.replace("expires = 2026-12-01\n", ""), "expires"),
        (KNOWN.replace("2026-12-01", '"never"'), "expires"),
        (UNTESTED.replace("no peer installed", ""), "needs the record's `reason`"),
        (UNTESTED.replace("the runner has none", ""), "needs the record's `reason`"),
        (UNTESTED.replace("why =", "because ="), "because"),
        ('warnings = "ignore"', "ignore"),
        ("knwon_failure = []", "knwon_failure"),
        ("required = [", "required"),
    ],
)
def test_what_could_match_nothing_or_excuse_anything_is_refused(read, text, told):
    with pytest.raises(BrokenGate) as caught:
        read(text)

    assert told in str(caught.value) or told == "required"


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(BrokenGate):
        load_policy(path, world.catalogue())


def test_a_reason_covers_itself_and_what_continues_it():
    allowed = AllowedUntested("F-A-001", "no peer installed", "x")

    assert allowed.covers("no peer installed")
    assert allowed.covers("no peer installed: llama.cpp")
    assert not allowed.covers("no peer installedX")
    assert not allowed.covers("blocked by F-BUILD-001: no peer installed")


def test_a_known_failure_covers_only_its_observations():
    known = KnownFailure("F-A-001", ("ids",), "x", "https://e.org/1", expires=None)

    assert known.covers({"ids"})
    assert known.covers({"ids/hello", "ids/bye"})
    assert not known.covers({"ids", "engine"})
    assert not known.covers(set())
