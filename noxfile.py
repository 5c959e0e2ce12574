"""Sessions: `falsify` is the trial, `tests` the project's own tests; `lint`, `types` and `docs` keep it clean."""

from __future__ import annotations

import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.sessions = ["falsify"]
nox.options.reuse_venv = "yes"
nox.needs_version = ">=2024.4.15"

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
PROJECT = nox.project.load_toml(Path(__file__).with_name("pyproject.toml"))
TOOLS = ("ruff", "mypy", "pandas-stubs", "nox")
SITE_TOOLS = nox.project.dependency_groups(PROJECT, "docs")
TEST_TOOLS = ("coverage", "jsonschema", "pyarrow", "pyyaml", "setuptools", "wheel")
ENGINE_OF_EXTRA = {"golden": "transformers", "runai": "runai-model-streamer", "llama-cpp": "llama_cpp"}
ENGINE_EXTRAS = [
    *ENGINE_OF_EXTRA, "fastsafetensors", "mlx", "tinygrad", "llama-server", "transformers-serve", "mistralrs",
]  # fmt: skip


def install(session: nox.Session, *packages: str) -> None:
    """Install pinned packages; with `--no-venv` the surrounding environment is used as it is."""
    if session.venv_backend != "none":
        session.install("--quiet", "--constraint", str(CONSTRAINTS), *packages)


def run_and_exit(session: nox.Session, *command: str) -> None:
    """Run a command and end nox with that command's own exit code, which nox would turn into 1."""
    try:
        session.run(*command, interrupt_timeout=60, terminate_timeout=30)
    except CommandFailed as failure:
        sys.exit(failure.return_code if failure.return_code is not None else 1)


@nox.session
def falsify(session: nox.Session) -> None:
    """Put an engine on trial: `nox -s falsify -- --engine reference -k f_mem` (arguments of `falsify run`)."""
    install(session, "--editable", ".[docs]", "setuptools", "wheel", "ruff")
    run_and_exit(session, "falsify", "run", *session.posargs)


@nox.session
@nox.parametrize("extra", ENGINE_EXTRAS)
def engine(session: nox.Session, extra: str) -> None:
    """Install one foreign engine and try its adapter: `nox -s "engine(extra='tinygrad')" -- --section parse`."""
    install(session, "--editable", f".[{extra}]")
    name = ENGINE_OF_EXTRA.get(extra, extra)
    session.run("falsify", "smoke", "--engine", name)
    run_and_exit(session, "falsify", "run", "--engine", name, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the project's own tests: `nox -s tests -- -k record`."""
    install(session, "--editable", ".[golden,docs,kernels]", *TEST_TOOLS, *TOOLS, *SITE_TOOLS)
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style; nothing is changed."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "--editable", ".", *TOOLS)
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Write the generated pages, build the site and the API reference into `site/`; a warning is an error."""
    install(session, "--editable", ".[docs,parquet]", *SITE_TOOLS)
    session.run("python", "-m", "conformance.documentation")
    session.run("python", "-m", "mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "-W", "error", "-m", "pdoc", "--output-directory", "site/api", "reference_engine", "reports")


@nox.session
def done(session: nox.Session) -> None:
    """Measure the definition of done: `nox -s done -- --gate satd` (arguments of `falsify done`)."""
    # Without an engine its adapter is not covered.
    extras = "golden,docs,kernels,mutation,readers,mistralrs,llama-server"
    install(session, "--editable", f".[{extras}]", *TEST_TOOLS, *TOOLS, *SITE_TOOLS)
    run_and_exit(session, "falsify", "done", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Limits, ours and peers in one table: `nox -s bench -- --json bench.json`; on the CPU where there is no GPU."""
    install(session, "--editable", ".[golden]")
    session.run("python", "benchmarks/bench.py", *session.posargs)


@nox.session
def fixture(session: nox.Session) -> None:
    """Repeat the golden run of the shipped fixture model with transformers and compare; `-- --make` writes anew."""
    install(session, "--editable", ".[golden]")
    session.run("python", "-m", "conformance.corpus.fixture.golden", *session.posargs)


@nox.session
def severity(session: nox.Session) -> None:
    """Plant faults and write the kill matrix: `nox -s severity -- --full` (arguments of `falsify severity`)."""
    install(session, "--editable", ".[docs]", "setuptools", "wheel", "ruff")
    run_and_exit(session, "falsify", "severity", *session.posargs)


@nox.session
def calibrate(session: nox.Session) -> None:
    """Measure error rates and detectable effects of the timed rows: `nox -s calibrate -- --seconds 230`."""
    install(session, "--editable", ".")
    run_and_exit(session, "falsify", "calibrate", *session.posargs)


@nox.session
def ray(session: nox.Session) -> None:
    """Test the matrix on a Ray cluster of this host's processes, some of which are killed."""
    install(session, "--editable", ".[golden,ray]", *TEST_TOOLS)
    session.run("python", "-m", "pytest", "tests/ray", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutate what decides verdicts and count what its tests kill: `nox -s mutation -- conformance/judge.py`."""
    install(session, "--editable", ".[mutation]", *TEST_TOOLS)
    session.run("python", "tests/mutation/run.py", str(Path(session.create_tmp()) / "mutation"), *session.posargs)
