"""The driver's end of the pipe for engines in Python: `serve(factory)` is a whole driver.

Standard output belongs to the protocol alone: before the engine is imported, descriptor 1 is kept under another
number and pointed at standard error, so that no native print can corrupt it; descriptor 0 likewise.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec

from conformance.protocol.messages import (
    MAX_LINE_BYTES,
    METHODS,
    PROTOCOL_VERSION,
    Empty,
    EngineInfo,
    ErrorData,
    ErrorKind,
    Initialize,
    Message,
    Request,
    Response,
    RpcError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
ENGINE_ERROR = -32000
MESSAGE_CHARACTERS = 2000
ENVELOPE_BYTES = 1024


class Adapter(Protocol):
    """An engine behind the protocol: one method a protocol method, `file.open` being `file_open(params)`.

    Each takes the method's parameter type and returns its result type (None for `Empty`). What it does not offer
    it leaves out; `ping` and `shutdown` are the host's.
    """

    def initialize(self, params: Initialize) -> EngineInfo:
        """Seed, bound the threads, and say who this is and what it offers."""
        ...

    def describe_error(self, error: Exception) -> ErrorData | None:
        """What one of the engine's own exceptions means; None for one it does not know."""
        ...


class Refusal(Exception):
    """The host's own refusal of a request."""

    def __init__(self, code: int, message: str, kind: ErrorKind) -> None:
        self.error = RpcError(code, _one_line(message), ErrorData(kind))
        super().__init__(message)


def serve(factory: Callable[[], Adapter]) -> None:
    """Answer requests until `shutdown` or the end of standard input.

    Args:
        factory: Imports the engine and makes its adapter; called after standard output was set aside.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    requests, answers = _set_streams_aside()
    host = Host(factory())
    while line := requests.readline(MAX_LINE_BYTES + 1):
        _write_all(answers, host.answer(line) + b"\n")
        if host.finished:
            break


class Host:
    """Turns one line into one answer; `finished` once the driver was asked to shut down."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.finished = False

    def answer(self, line: bytes) -> bytes:
        """The response to a request line, without its newline."""
        try:
            request = self._parse(line)
        except Refusal as refusal:
            return _encode(Response(None, error=refusal.error))
        try:
            response = Response(request.id, _fit(msgspec.json.encode(self._dispatch(request))))
        except Refusal as refusal:
            response = Response(request.id, error=refusal.error)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is an answer
            response = Response(request.id, error=self._describe(error))
        return _encode(response)

    def _parse(self, line: bytes) -> Request:
        if len(line) > MAX_LINE_BYTES:
            self.finished = True  # the rest of the line cannot be told from the next request
            raise Refusal(PARSE_ERROR, f"a line of more than {MAX_LINE_BYTES} bytes", ErrorKind.INVALID_ARGUMENT)
        try:
            return msgspec.json.decode(line, type=Request)
        except msgspec.ValidationError as error:
            raise Refusal(INVALID_REQUEST, str(error), ErrorKind.INVALID_ARGUMENT) from error
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise Refusal(PARSE_ERROR, str(error), ErrorKind.INVALID_ARGUMENT) from error

    def _dispatch(self, request: Request) -> Message:
        row = METHODS.get(request.method)
        if row is None:
            raise Refusal(METHOD_NOT_FOUND, f"no method {request.method!r}", ErrorKind.NOT_SUPPORTED)
        params = _convert(request, row.params)
        if request.method == "ping":
            return params
        if request.method == "shutdown":
            self.finished = True
            return Empty()
        handler = getattr(self._adapter, request.method.replace(".", "_"), None)
        if handler is None:
            raise Refusal(METHOD_NOT_FOUND, f"{request.method} is not offered", ErrorKind.NOT_SUPPORTED)
        result = handler(params)
        if result is None and row.result is Empty:
            return Empty()
        if not isinstance(result, row.result):
            expected = row.result.__name__
            raise TypeError(f"{request.method} returned {type(result).__name__}, not {expected}")
        return result

    def _describe(self, error: Exception) -> RpcError:
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
        try:
            data = self._adapter.describe_error(error)
        except Exception:  # noqa: BLE001 - an adapter that cannot describe is one that does not know
            traceback.print_exc(file=sys.stderr)
            data = None
        message = _one_line(str(error)) or type(error).__name__
        if data is None:
            return RpcError(INTERNAL_ERROR, message, ErrorData(ErrorKind.INTERNAL, type(error).__qualname__))
        fields = {name: _text(value) if isinstance(value, str) else value for name, value in data.fields.items()}
        return RpcError(ENGINE_ERROR, message, ErrorData(data.kind, data.type, fields))


def _convert(request: Request, kind: type[Message]) -> Message:
    text = b"{}" if isinstance(request.params, msgspec.UnsetType) else bytes(request.params)
    try:
        params = msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        message = f"{request.method}: {error}"
        raise Refusal(INVALID_PARAMS, message, ErrorKind.INVALID_ARGUMENT) from error
    if isinstance(params, Initialize) and _major(params.protocol) != _major(PROTOCOL_VERSION):
        message = f"protocol {params.protocol!r} is asked for, this driver speaks {PROTOCOL_VERSION}"
        raise Refusal(INVALID_PARAMS, message, ErrorKind.NOT_SUPPORTED)
    return params


def _fit(result: bytes) -> msgspec.Raw:
    if len(result) > MAX_LINE_BYTES - ENVELOPE_BYTES:
        raise Refusal(INTERNAL_ERROR, f"an answer of {len(result)} bytes", ErrorKind.INTERNAL)
    return msgspec.Raw(result)


def _major(version: str) -> str:
    return version.partition(".")[0]


def _encode(response: Response) -> bytes:
    try:
        return msgspec.json.encode(response)
    except (TypeError, ValueError, RecursionError) as error:
        # The adapter put something into an error's fields that JSON does not have.
        plain = RpcError(INTERNAL_ERROR, _one_line(str(error)), ErrorData(ErrorKind.INTERNAL))
        return msgspec.json.encode(Response(response.id, error=plain))


def _set_streams_aside() -> tuple[BinaryIO, int]:
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _text(text: str) -> str:
    # Names of files that are not UTF-8 come as surrogates, which JSON cannot carry.
    return text.encode("utf-8", "replace").decode()


def _one_line(text: str) -> str:
    line = " ".join(_text(text).split())
    return line if len(line) <= MESSAGE_CHARACTERS else line[:MESSAGE_CHARACTERS] + "…"
