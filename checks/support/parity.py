"""Decoding side by side with a peer: another engine behind the same protocol, on the same weights in the same dtype.

Rule R2: pairs in alternating order (ABBA…), one ratio a pair, so that a drift of clocks or heat falls on both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from checks.support.pool import decode_rate
from checks.support.quality import decisions_of
from checks.support.timing import decided
from conformance.corpus.goldens import GoldenCase
from conformance.corpus.variants import derive
from conformance.manifest import (
    BrokenManifest,
    EngineNotInstalled,
    LoadedManifest,
    UnknownEngine,
    load_manifest,
    require_installed,
)
from conformance.observations import Sample
from conformance.protocol.client import Engine
from conformance.protocol.failures import CapabilityNotOffered, DriverFailure, EngineRefused
from conformance.protocol.messages import Generate, Message, ModelLoad, ModelLoaded
from conformance.trial.launching import launch_of
from conformance.trial.stand import NotTried, Stand

LENGTHS = (17, 273)
_LOAD_S = 300.0


class Peer(Engine):
    """A peer's process; whatever befalls it is no fault of the engine on trial, so the row is UNTESTED with it."""

    name = "the peer"

    def call(self, method: str, params: Message | None = None, *, timeout: float | None = None) -> Any:
        """As `Engine.call`.

        Raises:
            NotTried: the peer does not start, refuses, or dies.
        """
        try:
            return super().call(method, params, timeout=timeout)
        except (EngineRefused, DriverFailure, CapabilityNotOffered) as failure:
            raise NotTried(f"peer {self.name}: {failure}") from failure


class Side(msgspec.Struct, frozen=True):
    """One of the two: its process and the model loaded in it."""

    engine: Engine
    model: ModelLoaded


def observe_parity(
    stand: Stand, checkpoint: Path, *, device: str, lengths: tuple[int, int] = LENGTHS, threads: int = 1
) -> None:
    """Observe `ratio_to_peer`: tokens a second of the engine on trial over the peer's, one value a pair.

    Raises:
        NotTried: there is no peer here, or it does not do its part.
    """
    manifest = peer_manifest(stand)
    with (
        Engine(launch_of(stand.manifest, stand.plan, threads=threads)) as engine,
        Peer(launch_of(manifest, stand.plan, threads=threads)) as peer,
    ):
        peer.name = manifest.manifest.engine.name
        other = _loaded(peer, _in_format_of(manifest, checkpoint), device)
        mine = _loaded(engine, checkpoint, device)
        if other.model.used_gpu != mine.model.used_gpu:
            raise NotTried(f"peer {peer.name}: it did not use the device that the engine used")
        pairs = _pairs(stand, lambda turn: _pair(mine, other, turn, lengths))
        version = peer.info.version
    mine_rates, other_rates = zip(*pairs, strict=True)
    stand.observe(
        Sample(
            name="ratio_to_peer",
            values=[ours / theirs for ours, theirs in pairs],
            unit="x",
            note=f"{peer.name} {version}",
            context={"engine_tok_s": sum(mine_rates) / len(pairs), "peer_tok_s": sum(other_rates) / len(pairs)},
        )
    )


def peer_manifest(stand: Stand) -> LoadedManifest:
    """The manifest of the trial's peer.

    Raises:
        NotTried: no such manifest is here, or what it needs is not installed.
    """
    try:
        manifest = load_manifest(stand.plan.peer)
        require_installed(manifest)
    except (UnknownEngine, BrokenManifest, EngineNotInstalled) as error:
        raise NotTried(f"peer not installed: {error}; `--peer PATH` names the manifest of another one") from error
    return manifest


def cases_of_peer(stand: Stand, cases: Sequence[GoldenCase]) -> list[GoldenCase]:
    """The cases that a peer decides from GGUF, on the CPU, exactly as the golden run did from SafeTensors.

    A case in which it leaves the golden run is its own affair and not counted.

    Raises:
        NotTried: there is no peer that reads GGUF, or it answers nothing as the golden run.
    """
    manifest = peer_manifest(stand)
    peer_name = manifest.manifest.engine.name
    if "gguf" not in manifest.manifest.engine.formats:
        raise NotTried(f"peer {peer_name} does not read GGUF")
    with Peer(launch_of(manifest, stand.plan)) as peer:
        peer.name = peer_name
        model = _loaded(peer, _in_format_of(manifest, stand.model_directory), "cpu").model
        told = [decisions_of(peer.call("generate", _by_ids(model, case))) for case in cases]
    alike = [case for case, decided_ids in zip(cases, told, strict=True) if decided_ids == list(case.decisions)]
    if not alike:
        raise NotTried(f"peer {peer_name} answers no case as the golden run does")
    return alike


def _by_ids(model: ModelLoaded, case: GoldenCase) -> Generate:
    """The case by its ids: tokenizers are another row's matter."""
    return Generate(model.handle, case.max_tokens, prompt_ids=list(case.prompt_ids))


def _loaded(engine: Engine, path: Path, device: str) -> Side:
    return Side(engine, engine.call("model.load", ModelLoad(str(path), device, "F32"), timeout=_LOAD_S))


def _in_format_of(manifest: LoadedManifest, checkpoint: Path) -> Path:
    """The same tensors, bit for bit, as the peer reads them: GGUF where it claims that, else SafeTensors."""
    claims_gguf = "gguf" in manifest.manifest.engine.formats
    return derive(checkpoint, "gguf-f32") if claims_gguf else checkpoint


def _pair(mine: Side, other: Side, turn: int, lengths: tuple[int, int]) -> tuple[float, float]:
    """Both rates, the engine's first; who begins changes with every turn."""
    rates = {
        side is mine: decode_rate(side.engine, side.model, *lengths)[0]
        for side in ((mine, other) if turn % 2 == 0 else (other, mine))
    }
    return rates[True], rates[False]


def _pairs(stand: Stand, pair: Callable[[int], tuple[float, float]]) -> list[tuple[float, float]]:
    """Pairs until the rule decides or its last look is reached; one more pair before them, which warms both up."""
    limit = stand.thresholds.limit(stand.row.id, "ratio_to_peer")
    assert limit is not None
    pair(0)
    pairs: list[tuple[float, float]] = []
    for look in limit.looks:
        pairs += [pair(turn) for turn in range(len(pairs), look)]
        if decided(limit, [ours / theirs for ours, theirs in pairs]):
            break
    return pairs
