"""What is wrong with an adapter, all in one go and before any check runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from conformance.protocol import messages
from conformance.protocol.driver import INVALID_PARAMS, METHOD_NOT_FOUND, Driver, Exit, Limits
from conformance.protocol.failures import (
    DriverDied,
    DriverFailure,
    DriverHung,
    DriverNotStarted,
    DriverStarved,
    EngineRefused,
    ProtocolViolated,
    signal_name,
)
from conformance.protocol.messages import METHODS, Capability, Empty, ErrorKind, Initialize, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conformance.protocol.client import Launch

LIMITS = Limits(call_s=30.0, close_s=5.0)
UNKNOWN_METHOD = "no.such.method"
UNKNOWN_PROTOCOL = "999.0"
UNKNOWN_HANDLE = 2**31 - 1
PRECISIONS = ("ieee_f32", "tf32", "bf16")
MISSING_PATH = "missing.safetensors"
LARGE_TEXT = "naïve ☕ 漢字 😀 " * 50_000

ADVICE = {
    DriverNotStarted: "Make the driver's command runnable: check its path, its permissions and its directory.",
    DriverDied: "Run the driver's command by hand and read its standard error: it must live until its input closes.",
    DriverHung: "Read standard input to the end of each line, answer every request, and flush after each answer.",
    DriverStarved: "Try again when the machine is less busy: the driver was kept from a processor.",
    ProtocolViolated: "Write nothing but one JSON-RPC 2.0 response a line to standard output; prints go to stderr.",
}


@dataclass(frozen=True)
class SmokeStep:
    """One thing that every adapter must do; `advice` says what to change and is empty when `ok`."""

    name: str
    ok: bool
    detail: str = ""
    advice: str = ""


class Wrong(Exception):
    """A step that the adapter failed without failing the protocol."""

    def __init__(self, detail: str, advice: str) -> None:
        self.detail = detail
        self.advice = advice
        super().__init__(detail)


class Introduction(Message, frozen=True):
    """`EngineInfo` with capabilities as plain text, so that an unknown one can be named."""

    name: str
    version: str
    capabilities: list[str]
    precision: str = "ieee_f32"


class Misspelt(Message, frozen=True):
    """Parameters of no method."""

    payload: int = 0


@dataclass(frozen=True)
class Trial:
    """One harmless call, the kinds of refusal that are right, and whether an answer is right too."""

    method: str
    params: Message
    kinds: tuple[ErrorKind, ...]
    answerable: bool = False


NO_SUCH_HANDLE = (ErrorKind.CLOSED_HANDLE, ErrorKind.INVALID_ARGUMENT)
TRIALS = {
    Capability.FILE: Trial("file.open", messages.FileOpen(MISSING_PATH), (ErrorKind.FILE_NOT_FOUND,)),
    Capability.DEVICE: Trial("device.list", Empty(), (ErrorKind.DEVICE_NOT_FOUND,), answerable=True),
    Capability.STORAGE: Trial("storage.download", messages.Handle(UNKNOWN_HANDLE), NO_SUCH_HANDLE),
    Capability.MODEL: Trial(
        "model.load", messages.ModelLoad(MISSING_PATH, "cpu"), (ErrorKind.FILE_NOT_FOUND, ErrorKind.INVALID_MODEL)
    ),
    Capability.GENERATE: Trial("tokenizer.encode", messages.Encode(UNKNOWN_HANDLE, "hello"), NO_SUCH_HANDLE),
}


def smoke(launch: Launch, limits: Limits = LIMITS) -> list[SmokeStep]:
    """Try all that every adapter must do, in order; only a driver that does not initialise ends it early."""
    return list(Smoke(launch, limits).steps())


class Smoke:
    """The steps on one launch; a driver that fails a step is replaced for the next."""

    def __init__(self, launch: Launch, limits: Limits = LIMITS) -> None:
        self._launch = launch
        self._limits = limits
        self._driver: Driver | None = None
        self._ended: Exit | None = None
        self._introduction = Introduction("", "", [])

    def steps(self) -> Iterator[SmokeStep]:
        """Each step as it ends."""
        try:
            started = _tried("starts and initialises", self._initialise)
            yield started
            if started.ok:
                yield from self._session()
        finally:
            if self._driver is not None:
                self._driver.kill()

    def _session(self) -> Iterator[SmokeStep]:
        yield _tried("names known capabilities", self._capabilities)
        yield _tried("names a known precision", self._precision)
        yield _tried("echoes ping", self._ping)
        yield _tried("refuses an unknown method", self._unknown_method)
        yield _tried("refuses wrong parameters", self._wrong_parameters)
        for capability, trial in TRIALS.items():
            if capability in self._introduction.capabilities:
                yield _tried(f"offers {capability}: {trial.method}", partial(self._offer, trial))
        yield _tried("ends with its input", self._end)
        yield _tried("prints only the protocol", self._silence)
        yield _tried("refuses an unknown protocol", self._unknown_protocol)
        yield _tried("ends on shutdown", self._shutdown)

    def _running(self) -> Driver:
        if self._driver is None or not self._driver.alive:
            self._initialise()
        assert self._driver is not None
        return self._driver

    def _spawn(self) -> Driver:
        if self._driver is not None:
            self._driver.kill()
        launch = self._launch
        self._driver = Driver.spawn(
            launch.command, cwd=launch.cwd, env=launch.env, run_dir=launch.run_dir, limits=self._limits
        )
        return self._driver

    def _opening(self, protocol: str = messages.PROTOCOL_VERSION) -> Initialize:
        launch = self._launch
        return Initialize(str(launch.run_dir), protocol, launch.seed, launch.threads)

    def _initialise(self) -> str:
        driver = self._spawn()
        try:
            self._introduction = driver.request(
                "initialize", self._opening(), Introduction, timeout=self._launch.startup_timeout
            )
        except EngineRefused as refused:
            advice = f"Accept `initialize` with protocol {messages.PROTOCOL_VERSION} as the first call."
            raise Wrong(str(refused), advice) from refused
        return f"{self._introduction.name} {self._introduction.version}"

    def _capabilities(self) -> str:
        offered = self._introduction.capabilities
        unknown = sorted(set(offered) - set(Capability))
        if unknown:
            known = ", ".join(Capability)
            raise Wrong(f"unknown: {', '.join(unknown)}", f"Offer only capabilities of the protocol: {known}.")
        if not offered:
            raise Wrong("none", "Name in `initialize` what the engine offers; without it every row is UNTESTED.")
        return ", ".join(offered)

    def _precision(self) -> str:
        precision = self._introduction.precision
        if precision not in PRECISIONS:
            raise Wrong(precision, f"Name how F32 is multiplied: {', '.join(PRECISIONS)}.")
        return precision

    def _ping(self) -> str:
        nothing = self._refusal("ping", messages.Ping())
        if nothing is not None:
            raise Wrong(f"without a payload {nothing}", "Take a field that is left out for its default, here no text.")
        answer = self._running().call("ping", messages.Ping(LARGE_TEXT))
        if answer.payload != LARGE_TEXT:
            raise Wrong("another payload came back", "Echo the payload as it came, in UTF-8, whatever its length.")
        return f"{len(LARGE_TEXT.encode())} bytes"

    def _offer(self, trial: Trial) -> str:
        refused = self._refusal(trial.method, trial.params)
        if refused is None and trial.answerable:
            return "answered"
        if refused is not None and refused.kind in trial.kinds:
            return str(refused.kind)
        if refused is not None and refused.code == METHOD_NOT_FOUND:
            capability = METHODS[trial.method].capability
            raise Wrong(str(refused), f"Implement {trial.method}, or do not offer the capability {capability}.")
        kinds = " or ".join(trial.kinds)
        raise Wrong(_said(refused), f"Refuse this call of {trial.method} with error data of kind {kinds}.")

    def _unknown_method(self) -> str:
        refused = self._refusal(UNKNOWN_METHOD, Empty())
        if refused is None or refused.code != METHOD_NOT_FOUND:
            advice = f"Answer a method you do not know with the JSON-RPC error {METHOD_NOT_FOUND}."
            raise Wrong(_said(refused), advice)
        return str(refused.code)

    def _wrong_parameters(self) -> str:
        advice = f"Answer parameters of a wrong type with the JSON-RPC error {INVALID_PARAMS}, never guess."
        try:
            refused = self._refusal("ping", Misspelt(5))
        except ProtocolViolated as violated:
            raise Wrong(str(violated), advice) from violated
        if refused is None or (refused.code != INVALID_PARAMS and refused.kind is not ErrorKind.INVALID_ARGUMENT):
            raise Wrong(_said(refused), advice)
        return str(refused.code)

    def _refusal(self, method: str, params: Message) -> EngineRefused | None:
        row = METHODS.get(method)
        try:
            self._running().request(method, params, row.result if row else Empty)
        except EngineRefused as refused:
            return refused
        return None

    def _end(self) -> str:
        self._ended = self._running().close()
        return _ends(self._ended, "its standard input closed", self._limits)

    def _silence(self) -> str:
        if self._ended is None:
            raise Wrong("not seen: it could not be started again", ADVICE[DriverDied])
        if self._ended.unsolicited:
            raise Wrong(repr(self._ended.unsolicited[:120])[1:], ADVICE[ProtocolViolated])
        return "nothing but answers until its end"

    def _unknown_protocol(self) -> str:
        advice = "Refuse `initialize` when the major version of `protocol` is not yours."
        try:
            self._spawn().request(
                "initialize",
                self._opening(UNKNOWN_PROTOCOL),
                Introduction,
                timeout=self._launch.startup_timeout,
            )
        except EngineRefused as refused:
            return str(refused.code)
        raise Wrong(f"protocol {UNKNOWN_PROTOCOL} was accepted", advice)

    def _shutdown(self) -> str:
        self._initialise()
        driver = self._running()
        driver.call("shutdown")
        return _ends(driver.close(), "`shutdown`", self._limits)


def _said(refused: EngineRefused | None) -> str:
    if refused is None:
        return "answered as if nothing were wrong"
    return f"{refused} (code {refused.code})"


def _ends(ended: Exit, cause: str, limits: Limits) -> str:
    limit = f"{limits.close_s:g} s"
    if ended.ended_by == "harness":
        raise Wrong(f"still running {limit} later", f"End the process with status 0 within {limit} of {cause}.")
    if ended.ended.exit_status != 0:
        number = ended.ended.signal
        how = f"exit status {ended.ended.exit_status}" if number is None else signal_name(number)
        raise Wrong(f"ended with {how}", f"Leave the main loop in order, with status 0, after {cause}.")
    return f"after {ended.seconds:.2f} s"


def _tried(name: str, step: Callable[[], str]) -> SmokeStep:
    try:
        return SmokeStep(name, ok=True, detail=step())
    except Wrong as wrong:
        return SmokeStep(name, ok=False, detail=wrong.detail, advice=wrong.advice)
    except EngineRefused as refused:
        return SmokeStep(name, ok=False, detail=str(refused), advice="Answer this call; nothing is wrong with it.")
    except DriverFailure as failure:
        said = failure.stderr_tail.strip().splitlines()
        detail = f"{failure}; last on its standard error: {said[-1]!r}" if said else str(failure)
        return SmokeStep(name, ok=False, detail=detail, advice=ADVICE[type(failure)])
