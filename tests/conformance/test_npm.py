"""Packages of npm: looked for in the folder that the npm on PATH names, and named where they are missing."""

import pytest

from conformance.manifest import EngineNotInstalled, load_manifest, require_installed
from conformance.npm import npm_package

MANIFEST = """
[engine]
name = "scripted"
npm = ["@scope/reader"]
"""


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm whose global folder is one of ours."""
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho {tmp_path}/global\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    return tmp_path / "global"


@pytest.fixture(autouse=True)
def _asked_anew():
    from conformance import npm as module

    module._root.cache_clear()
    yield
    module._root.cache_clear()


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "scripted.toml"
    path.write_text(MANIFEST)
    return load_manifest(str(path))


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(npm, manifest):
    with pytest.raises(EngineNotInstalled, match=r"no npm package '@scope/reader'; npm install --global @scope/reader"):
        require_installed(manifest)


def test_a_package_that_lies_in_the_global_folder_is_enough(npm, manifest):
    (npm / "@scope" / "reader").mkdir(parents=True)

    require_installed(manifest)

    assert npm_package("@scope/reader") == npm / "@scope" / "reader"


def test_without_npm_no_package_is_there(tmp_path, monkeypatch, manifest):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineNotInstalled, match="no npm package"):
        require_installed(manifest)


def test_an_npm_that_fails_has_no_packages(npm, tmp_path, manifest):
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\nexit 1\n")

    with pytest.raises(EngineNotInstalled, match="no npm package"):
        require_installed(manifest)
