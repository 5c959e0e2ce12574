"""The pytest plugin: runs one check, lets the judge judge, and sends one JSON string a row to the recorder.

It is installed as an entry point and does nothing unless a trial hands it a plan (`--falsify-plan`).
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler.loadscope import LoadScopeScheduling

    from conformance.catalogue import Row
    from conformance.protocol.client import Engine
    from conformance.record import RowResult
    from conformance.trial.plan import Plan
    from conformance.trial.stand import Stand

PROPERTY = "falsify"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option that a trial passes."""
    group = parser.getgroup("falsify", "falsification trials (see `falsify --help`)")
    group.addoption("--falsify-plan", metavar="FILE", default=None, help="plan of a trial, written by `falsify run`")


def pytest_configure(config: pytest.Config) -> None:
    """Register the rest of the plugin if this is a trial."""
    plan = config.getoption("--falsify-plan")
    if plan:
        if hasattr(config, "workerinput"):
            from conformance.protocol.guard import end_with_parent  # noqa: PLC0415

            end_with_parent()  # its engines' guards end with it
        config.pluginmanager.register(TrialPlugin(Path(plan)), "falsify-trial")


class TrialPlugin:
    """The part that only lives during a trial, in the controller and in every worker."""

    def __init__(self, plan_file: Path) -> None:
        from conformance.catalogue import load_catalogue  # noqa: PLC0415  pytest loads this module everywhere
        from conformance.trial.plan import read_plan  # noqa: PLC0415

        self.plan: Plan = read_plan(plan_file)
        self.rows: dict[str, Row] = {row.function: row for row in load_catalogue().rows}
        self._engine: Engine | None = None
        self._kept: list[Engine] = []

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the planned rows, in a seeded order if that is asked for."""
        planned = set(self.plan.rows)
        kept = [item for item in items if self.row_of(item).id in planned]
        dropped = [item for item in items if self.row_of(item).id not in planned]
        if dropped:
            config.hook.pytest_deselected(items=dropped)
        if self.plan.shuffle:
            random.Random(self.plan.seed).shuffle(kept)  # noqa: S311  a reproducible order
        items[:] = kept

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Producer) -> LoadScopeScheduling:
        """One worker serves all rows of a group; the groups are ours, since marks do not reach every xdist."""
        from xdist.scheduler.loadscope import LoadScopeScheduling  # noqa: PLC0415

        scheduler = LoadScopeScheduling(config, log)
        scheduler._split_scope = lambda nodeid: self.group_of(self.rows[nodeid.rsplit("::", 1)[-1]])  # noqa: SLF001  the documented way to choose a scope
        return scheduler

    def group_of(self, row: Row) -> str:
        """Rows on the GPU share one worker, so that none is another's tenant, and so do rows on one build."""
        if row.section == "build" or row.id == "F-ERR-095":
            return "build"
        on_device = self.plan.gpu and row.section not in {"parse", "err"}
        return "device" if on_device else row.id

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Run the check, turn what befell it into observations, judge, and hand the result on."""
        from conformance.trial.host_lock import timing  # noqa: PLC0415

        stand = cast("Stand", pyfuncitem.funcargs["stand"])
        with timing(alone=stand.row.alone):
            result = yield from self._tried(stand)
        self._kept += stand.kept
        shutil.rmtree(self.plan.directory / "exchange" / stand.row.id, ignore_errors=True)
        pyfuncitem.user_properties.append((PROPERTY, _encode(result)))
        return True

    def _tried(self, stand: Stand) -> Generator[None, object, RowResult]:
        from conformance.trial.befallen import concluded  # noqa: PLC0415  pytest loads this module everywhere

        began = time.monotonic()
        raised: Exception | None = None
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever a check raises becomes a verdict
            raised = error
        result = concluded(stand, raised, time.monotonic() - began)
        return msgspec.structs.replace(result, began_s=round(began, 3), device=self.plan.device)

    @pytest.fixture
    def stand(self, request: pytest.FixtureRequest) -> Stand:
        """What a check speaks from."""
        from conformance.manifest import load_manifest  # noqa: PLC0415
        from conformance.thresholds import load_thresholds  # noqa: PLC0415
        from conformance.trial.stand import Stand  # noqa: PLC0415

        manifest = load_manifest(self.plan.engine)
        return Stand(self.row_of(request.node), self.plan, manifest, load_thresholds(), self.engine())

    def engine(self) -> Engine:
        """This worker's engine; its process starts with the first call."""
        from conformance.manifest import load_manifest  # noqa: PLC0415
        from conformance.trial.launching import TrialEngine, launch_of  # noqa: PLC0415

        if self._engine is None:
            self._engine = TrialEngine(launch_of(load_manifest(self.plan.engine), self.plan))
        return self._engine

    def row_of(self, item: Any) -> Row:
        """The catalogue row of a collected check."""
        return self.rows[item.originalname or item.name]

    def pytest_sessionfinish(self) -> None:
        """Leave no engine behind."""
        for engine in (*self._kept, *([self._engine] if self._engine is not None else [])):
            engine.close()


def _encode(result: RowResult) -> str:
    from conformance.record import encode_line  # noqa: PLC0415

    return encode_line(result).decode()
