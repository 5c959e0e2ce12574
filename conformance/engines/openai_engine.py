"""Any OpenAI-compatible server behind the protocol: `python -m conformance.engines.openai_engine MANIFEST`.

The manifest's `[server]` table says how it is started; it runs on loopback, one process a loaded model.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from conformance.engines.http_server import HttpServer, NeverHealthy, ServerDied, free_port
from conformance.engines.text_engine import TextEngine, Wire
from conformance.manifest import BrokenManifest, LoadedManifest, PortTaken, ServerTable, load_manifest, port_is_free
from conformance.protocol.host import serve
from conformance.protocol.messages import Capability, EngineInfo, ErrorKind

KINDS: dict[type[Exception], ErrorKind] = {
    ServerDied: ErrorKind.INVALID_MODEL,
    NeverHealthy: ErrorKind.INVALID_MODEL,
    PortTaken: ErrorKind.INTERNAL,
}


def started(manifest: LoadedManifest, table: ServerTable, model: Path) -> HttpServer:
    """A healthy server on a model.

    Raises:
        PortTaken, ServerDied, NeverHealthy: there is none.
    """
    port = table.port or free_port()
    if not port_is_free(port):
        raise PortTaken(manifest.manifest.engine.name, port)
    server = HttpServer(manifest.filled(table.command, model=str(model), port=str(port)), port)
    server.wait_until_healthy(table.health, table.startup_timeout_s)
    return server


def engine_of(manifest: LoadedManifest) -> TextEngine:
    """The adapter of a manifest's server.

    Raises:
        BrokenManifest: it has no `[server]` table.
    """
    table, named = manifest.manifest.server, manifest.manifest.engine
    if table is None:
        raise BrokenManifest(manifest.path, "no [server] table: no server to start")
    offered = [Capability.MODEL, Capability.GENERATE]
    info = EngineInfo(named.name, _version(named.requires), offered, named.precision, named.language)
    wire = Wire(
        model=table.model,
        model_name=table.model_name,
        request=table.request,
        accepts_ids=table.accepts_ids,
        ignore_eos=table.ignore_eos,
        answer_timeout_s=table.answer_timeout_s,
    )
    return TextEngine(info, partial(started, manifest, table), wire, KINDS)


def _version(modules: tuple[str, ...]) -> str:
    """The version of the package that brings the server."""
    try:
        return f"{modules[0]} {version(modules[0])}" if modules else "unknown"
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    serve(partial(engine_of, load_manifest(sys.argv[1])))
