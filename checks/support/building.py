"""The engine built from a clean export, and its roles as they resolve there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.manifest import CommandTable, LoadedManifest
from conformance.protocol.client import Engine
from conformance.sources import resolve
from conformance.sources.workshop import Installed, Workshop, run
from conformance.trial.launching import launch_of
from conformance.trial.stand import NotTried, Stand

ROLES = ("SafeTensorsCudaLoader", "SafeTensorsCudaModel", "CudaStorage", "from_safetensors", "generate")


def required(stand: Stand, table: str) -> CommandTable:
    """A command table of the manifest.

    Raises:
        NotTried: the manifest has none.
    """
    found = getattr(stand.manifest.manifest, table)
    if not isinstance(found, CommandTable):
        raise NotTried(f"the manifest has no [{table}] table")
    return found


def workshop(stand: Stand) -> Workshop:
    """The workshop of this trial."""
    return Workshop(stand.manifest, stand.plan.directory / "exchange" / "workshop")


def installed(stand: Stand) -> Installed:
    """The engine as built and installed once in this trial."""
    required(stand, "build")
    directory = stand.plan.directory / "exchange" / "workshop"
    if directory not in _INSTALLED:
        _INSTALLED[directory] = _install(stand.manifest, directory)
    return _INSTALLED[directory]


_INSTALLED: dict[Path, Installed] = {}


def _install(manifest: LoadedManifest, directory: Path) -> Installed:
    table = manifest.manifest.build
    assert table is not None
    return Workshop(manifest, directory).install(table)


def observe_compiled(stand: Stand) -> None:
    """Observe `builds` for an engine of another language: the command in a clean export, and what it leaves there.

    The artefact is looked for in the export and in `{out}`; a command that leaves none has built nothing.
    """
    table, shop = required(stand, "build"), workshop(stand)
    copy, out = shop.export("compiled"), stand.directory / "out"
    out.mkdir()
    built = shop.run(table, copy, out=str(out))
    stand.attach_text("build.log", built.output)
    left = [path.name for where in (copy, out) for path in where.glob(table.artefact)] if table.artefact else []
    if not built.ok:
        stand.failed("builds", "build failed", built.told)
    elif table.artefact and not left:
        stand.failed("builds", "build failed", f"nothing that matches {table.artefact} was left")
    else:
        stand.equal("builds", expected=True, observed=built.ok, note=", ".join(sorted(left)))


def ready(stand: Stand) -> Installed:
    """The installed engine.

    Raises:
        NotTried: it does not build, which is F-BUILD-001's finding.
    """
    made = installed(stand)
    if not made.ok:
        raise NotTried("blocked by F-BUILD-001: the build failed")
    return made


def resolved_roles(stand: Stand) -> dict[str, dict[str, Any]]:
    """What each role of the manifest resolves to inside the built environment; an absent role resolves to nothing."""
    if stand.manifest.manifest.engine.language != "python":
        raise NotTried("roles are resolved by reflection, which this language does not offer here")
    made = ready(stand)
    roles = {role: stand.manifest.manifest.roles.get(role, ":") for role in ROLES}
    asked = run([made.python, "-I", str(Path(resolve.__file__)), json.dumps(roles)], Path(made.site), 120)
    if not asked.ok:
        raise NotTried(f"the built environment cannot be asked: {asked.told}")
    found: dict[str, dict[str, Any]] = json.loads(asked.output.splitlines()[-1])
    return found


_STARTED: dict[Path, Engine] = {}


def built_engine(stand: Stand) -> Engine:
    """The engine started from the built artefact, with nothing of the checkout on its path; one for all rows."""
    made = ready(stand)
    if stand.plan.directory not in _STARTED:
        launch = launch_of(stand.manifest, stand.plan, python=made.python)
        environment = {key: value for key, value in launch.env.items() if key != "PYTHONPATH"}
        _STARTED[stand.plan.directory] = stand.keep(Engine(replace(launch, env=environment)))
    return _STARTED[stand.plan.directory]
