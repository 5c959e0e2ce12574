"""What ran: a commit and whether it was changed, or a hash of the sources."""

import os
import subprocess

import pytest

from conformance.revision import PACKAGES, revision, sources_name, sources_sha256


@pytest.fixture
def project(tmp_path):
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "code.py").write_text(f"name = {package!r}\n")
    return tmp_path


def git(project, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(["git", "-C", project, *identity, *arguments], check=True, capture_output=True, env=clean)


@pytest.fixture
def repository(project):
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "all")
    return project


def test_a_commit_that_was_not_changed(repository):
    found = revision(repository)

    assert found.name.startswith("git:")
    assert len(found.name) == len("git:") + 40
    assert not found.dirty


def test_a_changed_file_and_a_new_check_are_changes(repository):
    new = repository / "checks" / "test_new.py"
    new.write_text("")
    assert revision(repository).dirty
    new.unlink()
    (repository / "checks" / "code.py").write_text("other = 1\n")
    assert revision(repository).dirty


def test_runs_are_no_changes(repository):
    (repository / "falsify-run").mkdir()
    (repository / "falsify-run" / "record.jsonl").write_text("{}")

    assert not revision(repository).dirty


def test_another_repository_named_by_the_environment_is_not_ours(repository, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("other")))

    assert revision(repository).name.startswith("git:")


def test_where_git_cannot_say_whether_it_was_changed_it_counts_as_changed(repository, monkeypatch):
    from conformance import revision as module

    ask = module._git
    monkeypatch.setattr(module, "_git", lambda root, *args: None if args[0] == "status" else ask(root, *args))

    assert revision(repository).dirty


def test_without_git_it_is_the_hash_of_the_sources(project):
    found = revision(project)

    assert found.name == f"sources:{sources_sha256(project)}"
    assert not found.dirty


def test_a_broken_repository_falls_back_to_the_sources(project):
    (project / ".git").mkdir()

    assert revision(project).name.startswith("sources:")


def test_no_git_on_the_path_falls_back_to_the_sources(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert revision(repository).name.startswith("sources:")


@pytest.mark.parametrize("change", ["content", "name", "border"])
def test_every_change_of_a_source_changes_the_hash(project, change):
    before = sources_sha256(project)
    code = project / "checks" / "code.py"

    if change == "content":
        code.write_text("name = 'other'\n")
    elif change == "name":
        code.rename(code.with_name("other.py"))
    else:
        (project / "checks" / "code2.py").write_text("")

    assert sources_sha256(project) != before


def test_what_is_no_source_changes_nothing(project):
    before = sources_sha256(project)
    (project / "checks" / "__pycache__").mkdir()
    (project / "checks" / "__pycache__" / "code.pyc").write_bytes(b"x")

    assert sources_sha256(project) == before


def test_what_runs_is_named_by_its_commit_or_else_by_its_sources(repository):
    assert sources_name(repository) == revision(repository).name

    (repository / PACKAGES[0] / "code.py").write_text("name = 'changed'\n")

    assert sources_name(repository) == f"sources:{sources_sha256(repository)}"
