"""An engine on Python's standard library alone: it reads SafeTensors files, trusts them, and speaks the protocol."""

import hashlib
import itertools
import json
import os
import struct
import sys
from pathlib import Path

KINDS = {FileNotFoundError: "file_not_found", PermissionError: "permission_denied", KeyError: "closed_handle"}
files, numbers = {}, itertools.count()


def initialize(run_dir, protocol, **_):
    if protocol.split(".")[0] != "1":
        raise TypeError(f"protocol {protocol} is not spoken here")
    os.chdir(run_dir)
    return {"name": "plain", "version": "0.1", "capabilities": ["file"], "language": "python"}


def ping(payload="", **_):
    return {"payload": payload + ""}  # a TypeError where it is no text


def file_open(path, **_):
    with Path(path).open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    handle = next(numbers)
    files[handle] = (path, 8 + length, header.pop("__metadata__", {}), header)
    return {"handle": handle}


def file_inspect(handle, **_):
    *_, metadata, header = files[handle]
    tensors = [{"name": name, "dtype": t["dtype"], "shape": t["shape"]} for name, t in header.items()]
    return {"tensors": tensors, "metadata": metadata}


def file_read(handle, tensor, **_):
    path, start, _, header = files[handle]
    begin, end = header[tensor]["data_offsets"]
    with Path(path).open("rb") as file:
        file.seek(start + begin)
        data = file.read(end - begin)
    out = Path(f"{next(numbers)}.bin").resolve()
    out.write_bytes(data)
    described = {"dtype": header[tensor]["dtype"], "shape": header[tensor]["shape"]}
    return {"path": str(out), "nbytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **described}


METHODS = {
    "initialize": initialize, "ping": ping, "shutdown": dict, "file.open": file_open, "file.inspect": file_inspect,
    "file.read": file_read, "file.close": lambda handle: files.pop(handle) and {},
}  # fmt: skip


def answer(method, params):
    if method not in METHODS:
        return {"error": {"code": -32601, "message": f"no method {method}"}}
    try:
        return {"result": METHODS[method](**params)}
    except Exception as error:  # noqa: BLE001  whatever went wrong is an answer, too
        code = -32602 if isinstance(error, TypeError) else -32000
        data = {"kind": KINDS.get(type(error), "internal"), "type": type(error).__name__}
        return {"error": {"code": code, "message": str(error), "data": data}}


for line in sys.stdin:
    request = json.loads(line)
    said = answer(request["method"], request.get("params", {}))
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}) + "\n")
    sys.stdout.flush()
    if request["method"] == "shutdown":
        break
