import pytest

from conformance.corpus.checkpoint import fingerprint
from conformance.corpus.goldens import load_goldens
from conformance.corpus.models import FIXTURE, RANDOM, ModelNotFound, resolve_model


def test_a_model_is_shipped():
    model = resolve_model()
    assert model.directory == (FIXTURE if (FIXTURE / "model.safetensors").is_file() else RANDOM)
    assert model.goldens_directory is not None
    load_goldens(model.goldens_directory).require(model.sha256)


def test_random_by_name():
    model = resolve_model("random")
    assert (model.name, model.kind, model.directory) == ("random", "random", RANDOM)
    assert model.nbytes == (RANDOM / "model.safetensors").stat().st_size
    assert model.sha256 == fingerprint(RANDOM).sha256


@pytest.mark.parametrize("ending", ["", "/model.safetensors"])
def test_directory_and_file_in_it_are_the_same_model(ending):
    model = resolve_model(f"{RANDOM}{ending}")
    assert (model.kind, model.directory, model.goldens_directory) == ("checkpoint", RANDOM, RANDOM)


@pytest.mark.parametrize("spec", ["no-such-model", "/etc", "/etc/passwd", ""])
def test_what_is_no_model_is_a_clear_error(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound) as caught:
        resolve_model(spec)
    assert repr(spec) in str(caught.value)
    assert caught.value.spec == spec


def test_checkpoint_without_goldens(tmp_path):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((RANDOM / name).read_bytes())
    assert resolve_model(str(tmp_path)).goldens_directory is None
