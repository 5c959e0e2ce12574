import pytest

from conformance.corpus.safetensors.hunt import confine


@pytest.fixture(scope="session", autouse=True)
def _hypothesis_stays_inside(tmp_path_factory):
    confine(tmp_path_factory.mktemp("hypothesis"))
