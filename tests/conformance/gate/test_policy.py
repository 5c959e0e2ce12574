"""A gate file is refused unless every entry can match something and says why it is there."""

import msgspec
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
        (UNTESTED.replace("the runner has none", "\u00a0\u200b."), "needs the record's `reason`"),
        (KNOWN.replace("being mended", "\u2060 -"), "needs a `reason`"),
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

    assert allowed.covers("no peer installed: llama.cpp".partition(":")[0])
    assert allowed.covers("no peer installed: llama.cpp")
    assert not allowed.covers("no peer installedX")
    assert not allowed.covers("blocked by F-BUILD-001: no peer installed")


def test_a_known_failure_covers_only_its_observations():
    known = KnownFailure("F-A-001", ("ids",), "x", "https://e.org/1", expires=None)

    assert known.covers({"ids"})
    assert known.covers({"ids/hello", "ids/bye"})
    assert not known.covers({"ids", "engine"})
    assert not known.covers(set())


TWO = (world.ROWS[0], msgspec.structs.replace(world.ROWS[1], observes=("left",), observes_on_gpu=("rate",)))


@pytest.mark.parametrize("rows", [TWO, TWO[::-1]])
@pytest.mark.parametrize("name", ["left", "left/F16", "rate", "engine"])
def test_a_known_failure_names_observations_of_its_own_row_wherever_that_stands(tmp_path, name, rows):
    path = tmp_path / "gate.toml"
    path.write_text(KNOWN.replace("F-A-001", "F-A-002").replace('"right"', f'"{name}"'))

    assert load_policy(path, world.catalogue(rows)).known_failure[0].observations == (name,)
    path.write_text(KNOWN)
    assert load_policy(path, world.catalogue(rows)).known_failure[0].observations == ("right",)


@pytest.mark.parametrize("name", ["right", "F16/left", "engines"])
def test_a_known_failure_cannot_name_what_only_another_row_observes(tmp_path, name):
    path = tmp_path / "gate.toml"
    path.write_text(KNOWN.replace("F-A-001", "F-A-002").replace('"right"', f'"{name}"'))

    with pytest.raises(BrokenGate) as caught:
        load_policy(path, world.catalogue(TWO))

    assert caught.value.cause == f"F-A-002: {name!r} matches no observation; there are engine, left, rate"
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.cause}"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('required = ["F-A-999"]', "'F-A-999' matches no row of the catalogue"),
        (KNOWN + KNOWN, "F-A-001 is named twice"),
        (KNOWN.replace("https:", "ftp:"), "F-A-001: `issue` must be a link, not 'ftp://example.org/issues/7'"),
        (KNOWN.replace("https:", ""), "F-A-001: `issue` must be a link, not '//example.org/issues/7'"),
        (KNOWN.replace("being mended", ""), "F-A-001: a known failure needs a `reason`"),
        (
            UNTESTED.replace("no peer installed", " "),
            "F-A-002: an untested row needs the record's `reason` and a `why`",
        ),
        (
            UNTESTED.replace("the runner has none", " "),
            "F-A-002: an untested row needs the record's `reason` and a `why`",
        ),
    ],
)
def test_a_refusal_names_the_entry_and_what_it_lacks(read, text, cause):
    with pytest.raises(BrokenGate) as caught:
        read(text)

    assert caught.value.cause == cause


def test_a_link_need_not_be_encrypted(read):
    assert read(KNOWN.replace("https:", "http:")).known_failure[0].issue == "http://example.org/issues/7"


@pytest.mark.parametrize("entry", [KNOWN, UNTESTED])
def test_a_word_that_nobody_knows_is_refused_in_an_entry_too(read, entry):
    with pytest.raises(BrokenGate, match="until_further_notice"):
        read(entry + "until_further_notice = true\n")


def test_a_gate_file_that_is_not_there_is_no_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_policy(tmp_path / "gate.toml", world.catalogue())


@pytest.mark.parametrize(
    "entry", [Policy(), AllowedUntested("F-A-001", "x", "y"), KnownFailure("a", (), "x", "y", None)]
)
def test_what_a_gate_file_said_cannot_be_changed(entry):
    field = entry.__struct_fields__[0]

    with pytest.raises(AttributeError):
        setattr(entry, field, getattr(entry, field))


@pytest.mark.parametrize("rest", [": llama.cpp", "; try again", ", or broken", " yet"])
def test_a_reason_may_go_on_after_punctuation(rest):
    assert AllowedUntested("F-A-001", "no peer installed", "x").covers(f"no peer installed{rest}")


@pytest.mark.parametrize("reason", ["no peer", "", "zzz", "no peer installed.", "NO PEER INSTALLED"])
def test_another_reason_is_not_covered(reason):
    assert not AllowedUntested("F-A-001", "no peer installed", "x").covers(reason)


def test_a_variant_is_covered_by_name_or_by_what_it_is_a_variant_of():
    known = KnownFailure("F-A-001", ("ids/hello", "rate"), "x", "https://e.org/1", expires=None)

    assert known.covers({"ids/hello", "rate/decode/4096"})
    assert not known.covers({"ids/bye"})
    assert not known.covers({"ids"})
    assert not known.covers({"decode/rate"})
