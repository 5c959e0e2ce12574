"""A driver that gets one thing wrong, named by its argument, and all else right: what smoke must point at."""

import json
import sys
import time

WRONG = sys.argv[1]
KNOWN = {"initialize", "ping", "shutdown", "file.open", "device.list", "storage.download"}


def result_of(method, params):
    if method == "initialize":
        if params["protocol"].split(".")[0] != "1" and WRONG != "accepts_any_protocol":
            raise LookupError(-32602, "not_supported")
        return introduction()
    if method == "ping":
        return ping(params)
    if method == "shutdown":
        return {}
    if method not in KNOWN and WRONG == "answers_unknown":
        return {}
    if method in {"file.open", "storage.download", "device.list"} and WRONG != "lacks_file":
        return trial(method)
    raise LookupError(-32601, "not_supported")


def introduction():
    offered = {"unknown_capability": ["file", "telepathy"], "no_capability": []}
    return {
        "name": "sloppy",
        "version": "1",
        "capabilities": offered.get(WRONG, ["file", "device", "storage"]),
        "precision": "fp8" if WRONG == "unknown_precision" else "tf32",
    }


def ping(params):
    if "payload" not in params and WRONG == "demands_every_field":
        raise LookupError(-32602, "invalid_argument")
    payload = params.get("payload", "")
    if WRONG == "echoes_anything":
        return {"payload": payload}
    if not isinstance(payload, str) and WRONG == "code_without_kind":
        raise LookupError(-32602, "internal")
    if not isinstance(payload, str) and WRONG != "guesses_parameters":
        raise LookupError(-32602, "invalid_argument")
    payload = str(payload)
    if WRONG == "dies_on_ping":
        sys.exit("ping is too much")
    if WRONG == "hangs_up_on_long_lines" and len(payload) > 65536:
        payload = payload[:65536]
    if WRONG == "ascii_only":
        payload = payload.encode("ascii", "replace").decode()
    return {"payload": payload}


def trial(method):
    if method == "device.list":
        if WRONG == "devices_wrongly_typed":
            return {"devices": [{"index": "0"}]}
        raise LookupError(-32000, "device_not_found")
    if WRONG == "opens_anything":
        return {"handle": 1}
    if method == "storage.download":
        raise LookupError(-32000, "closed_handle")
    raise LookupError(-32000, "internal" if WRONG == "untyped_refusal" else "file_not_found")


def answer(request):
    try:
        return {"result": result_of(request["method"], request.get("params", {}))}
    except LookupError as error:
        code, kind = error.args
        return {"error": {"code": code, "message": "no", "data": {"kind": kind}}}


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    for line in sys.stdin:
        request = json.loads(line)
        say(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer(request)}))
        if request["method"] == "shutdown":
            time.sleep(60 if WRONG == "ignores_shutdown" else 0)
            return
    if WRONG == "ignores_the_end":
        time.sleep(60)
    if WRONG == "prints_at_the_end":
        say("goodbye")
    if WRONG == "ends_badly":
        sys.exit(1)


main()
