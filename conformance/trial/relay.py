"""Carries results from pytest's reports to the recorder; whatever is no result is the harness's own fault, and told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec
import psutil
import pytest

from conformance.plugin import PROPERTY
from conformance.record import RowResult
from conformance.trial.recorder import Recorder
from conformance.trial.signals import Stop
from conformance.verdicts import Verdict

NO_RESULT = "the check left no result"


class Relay:
    """A plugin of the controller. `functions` maps the name of each planned check to its row.

    Attributes:
        broken: Why checks could not be collected or run; empty when all could.
    """

    def __init__(self, recorder: Recorder, functions: Mapping[str, str], stop: Stop) -> None:
        self.broken = ""
        self._recorder = recorder
        self._functions = functions
        self._stop = stop

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say that a row begins."""
        self._break_off_if_asked()
        row_id = self._functions.get(_function(nodeid))
        if row_id is not None:
            self._recorder.started(row_id)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the row's result, or an ERROR where there should be one and is none."""
        row_id = self._functions[_function(report.nodeid)]
        sent = [str(value) for key, value in report.user_properties if key == PROPERTY]
        if report.when == "call" and sent:
            for text in sent:
                self._recorder.record(_decoded(row_id, text))
        elif (report.when == "call" or not report.passed) and row_id not in self._recorder.results:
            where = "" if report.when == "call" else f", {report.when if report.when in _PHASES else 'worker'} failed"
            reason = f"{NO_RESULT}{where}: {_why(report)}"
            self._recorder.record(RowResult(row_id, Verdict.ERROR, reason=reason))
        self._break_off_if_asked()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep why a file of checks could not be collected."""
        if report.failed and not self.broken:
            self.broken = f"{report.nodeid or 'checks'} cannot be collected: {_why(report)}"

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep what broke the machinery itself."""
        self.broken = self.broken or f"{type(excinfo.value).__name__}: {_last_line(str(excinfo.value))}"

    @staticmethod
    def pytest_keyboard_interrupt() -> None:
        """End the workers at once; asked politely by xdist they would first wait for what their engines do."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                child.terminate()

    def _break_off_if_asked(self) -> None:
        # The exception of a signal can be lost where Python must ignore it, such as in a finaliser.
        if self._stop.requested:
            raise KeyboardInterrupt


_PHASES = {"setup", "call", "teardown"}


def _function(nodeid: str) -> str:
    """The test's name: without its file and without the group that xdist writes behind it."""
    return nodeid.rsplit("::", 1)[-1].split("@", 1)[0].split("[", 1)[0]


def _decoded(row_id: str, text: str) -> RowResult:
    try:
        result = msgspec.json.decode(text, type=RowResult)
    except msgspec.MsgspecError as error:
        return RowResult(row_id, Verdict.ERROR, reason=f"{NO_RESULT} that can be read: {error}")
    if result.id != row_id:
        return RowResult(row_id, Verdict.ERROR, reason=f"{NO_RESULT} of its own: it speaks of {result.id}")
    return result


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return _last_line(report.longreprtext) if crash is None else str(crash.message).split("\n", 1)[0]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason was given")
