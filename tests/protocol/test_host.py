import json
import subprocess
import sys

import msgspec
import pytest

from conformance.protocol import messages as m
from conformance.protocol.host import Host

FAILURES = {
    "absent": FileNotFoundError("na\udcffme\nline two"),
    "object": FileNotFoundError({1, object()}),
    "secret": PermissionError("no"),
    "unknown": KeyError("unknown"),
}


class Adapter:
    def initialize(self, _):
        return m.EngineInfo("test", "1", [])

    def describe_error(self, error):
        if error is FAILURES["secret"]:
            raise LookupError
        if isinstance(error, FileNotFoundError):
            return m.ErrorData(m.ErrorKind.FILE_NOT_FOUND, "NotFound", {"path": error.args[0]})
        return None

    def file_open(self, params):
        raise FAILURES[params.path]

    def file_close(self, _):
        return None

    def file_inspect(self, _):
        return m.Empty()

    def file_read(self, _):
        return m.TensorData("x" * m.MAX_LINE_BYTES, "F32", [], 0, "")


@pytest.fixture
def ask():
    host = Host(Adapter())

    def send(line):
        answer = json.loads(host.answer(line if isinstance(line, bytes) else json.dumps(line).encode()))
        assert answer["jsonrpc"] == "2.0"
        assert ("result" in answer) != ("error" in answer)
        return answer

    return send


def call(method, **params):
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def test_a_request_is_answered_under_its_id(ask):
    assert ask(call("ping", payload="ü")) == {"jsonrpc": "2.0", "id": 7, "result": {"payload": "ü"}}
    assert ask({"id": 8, "method": "ping"})["result"] == {}


def test_a_handler_without_a_result_answers_empty(ask):
    assert ask(call("file.close", handle=1))["result"] == {}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"not json\n", -32700),
        (b"\xff\n", -32700),
        (b'{"id":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", -32700),
        (b"x" * (m.MAX_LINE_BYTES + 1), -32700),
        (b"[]\n", -32600),
        (b'{"method":"ping"}\n', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}\n', -32600),
    ],
)
def test_what_is_not_a_request_is_refused_without_an_id(ask, line, code):
    answer = ask(line)
    assert answer["id"] is None
    assert answer["error"]["code"] == code


@pytest.mark.parametrize(
    ("request_", "code", "kind"),
    [
        (call("no.such"), -32601, "not_supported"),
        (call("__init__"), -32601, "not_supported"),
        (call("describe_error"), -32601, "not_supported"),
        (call("device.list"), -32601, "not_supported"),
        (call("ping", payload=1), -32602, "invalid_argument"),
        (call("file.open"), -32602, "invalid_argument"),
        ({**call("ping"), "params": None}, -32602, "invalid_argument"),
        (call("initialize", run_dir="", protocol="2.0"), -32602, "not_supported"),
        (call("file.inspect", handle=1), -32603, "internal"),
        (call("file.read", handle=1, tensor="x"), -32603, "internal"),
    ],
)
def test_refusals_have_the_code_of_their_kind(ask, request_, code, kind):
    error = ask(request_)["error"]
    assert (error["code"], error["data"]["kind"]) == (code, kind)


def test_a_newer_minor_version_is_spoken_to(ask):
    assert ask(call("initialize", run_dir="", protocol="1.9", news=True))["result"]["name"] == "test"


def test_an_engines_error_carries_its_type_and_fields_in_one_line(ask):
    error = ask(call("file.open", path="absent"))["error"]
    assert error["code"] == -32000
    assert error["message"] == "na?me line two"
    assert error["data"] == {"kind": "file_not_found", "type": "NotFound", "fields": {"path": "na?me\nline two"}}


@pytest.mark.parametrize("path", ["unknown", "secret", "object"])
def test_an_error_that_cannot_be_described_is_internal_and_its_traceback_stays_on_stderr(ask, path, capfd):
    error = ask(call("file.open", path=path))["error"]
    assert error["code"] == -32603
    assert error["data"]["kind"] == "internal"
    assert "Traceback" not in error["message"]
    assert "Traceback" in capfd.readouterr().err


DRIVER = """
import os, sys
from conformance.protocol import messages as m
from conformance.protocol.host import serve

class Adapter:
    def initialize(self, params):
        os.write(1, b"native noise")
        os.system("echo noise of a child")
        print("noise", repr(sys.stdin.read()))
        return m.EngineInfo("noisy", "1", [])
    def describe_error(self, error):
        return None

def factory():
    os.write(1, b"noise while importing")
    return Adapter()

serve(factory)
print("noise at the end")
"""


@pytest.mark.parametrize("last", [b"", b'{"id":2,"method":"shutdown"}\n{"id":3,"method":"ping"}\n'])
def test_nothing_but_answers_reaches_standard_output(good, last):
    request = msgspec.json.encode(m.Request(1, "initialize", msgspec.Raw(msgspec.json.encode(m.Initialize("")))))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=request + b"\n" + last,
        env=good.env,
        capture_output=True,
        timeout=20,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == ([1, 2] if last else [1])
    assert b"noise of a child" in done.stderr
    assert b"noise ''" in done.stderr
    assert b"noise at the end" in done.stderr
