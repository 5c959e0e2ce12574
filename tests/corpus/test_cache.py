import threading
import time

import pytest

from conformance.corpus.cache import cache_root, cached, read_provenance, verify


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def build(directory):
    (directory / "a.txt").write_text("hello")


def test_built_once_and_recorded():
    calls = []

    def counted(directory):
        calls.append(directory)
        build(directory)

    place = cached("x", counted, origin="a test")
    assert cached("x", counted, origin="a test") == place == cache_root() / "x"
    assert len(calls) == 1
    assert read_provenance(place).origin == "a test"
    assert verify(place) == []


def test_failed_build_leaves_nothing():
    def fail(directory):
        build(directory)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached("x", fail, origin="")
    assert [path.name for path in cache_root().iterdir()] == [".x.lock"]
    assert cached("x", build, origin="").is_dir()


def test_truncated_or_missing_file_is_built_again():
    place = cached("x", build, origin="")
    (place / "a.txt").write_text("h")
    assert (cached("x", build, origin="") / "a.txt").read_text() == "hello"
    (place / "provenance.json").write_text("{")
    assert (cached("x", build, origin="") / "a.txt").read_text() == "hello"


def test_changed_content_of_the_same_size_is_found_by_verify():
    place = cached("x", build, origin="")
    (place / "a.txt").write_text("jello")
    assert verify(place) == ["a.txt"]


def test_two_at_once_build_once():
    calls = []

    def slow(directory):
        calls.append(directory)
        time.sleep(0.2)
        build(directory)

    threads = [threading.Thread(target=cached, args=("x", slow), kwargs={"origin": ""}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
