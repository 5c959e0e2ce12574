"""Which model the engines are tried on: the shipped one, a downloaded one, or any checkpoint of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conformance.corpus import smollm2
from conformance.corpus.checkpoint import CheckpointInvalid, fingerprint
from conformance.corpus.goldens import golden_paths
from conformance.reported import Reported

RANDOM = Path(__file__).with_name("random")
FIXTURE = Path(__file__).with_name("fixture") / "model"


class ModelNotFound(Reported):
    """A `--model` that is neither a known name nor a checkpoint; carries what was asked and why not."""

    def __init__(self, spec: str, reason: str) -> None:
        super().__init__(f"model {spec!r}: {reason}")
        self.spec = spec
        self.reason = reason


@dataclass(frozen=True)
class ModelUnderTrial:
    """A checkpoint that engines load; `goldens_directory` is None where nobody has made golden outputs."""

    name: str
    kind: str
    directory: Path
    goldens_directory: Path | None
    sha256: str
    nbytes: int


def resolve_model(spec: str | None = None) -> ModelUnderTrial:
    """The model that `--model` names.

    None is the trained fixture, or the random checkpoint where no fixture is shipped; `fixture`, `random` and
    `smollm2` (downloaded once) are named; everything else is the path of a checkpoint directory, or of a
    .safetensors file in one. Goldens of a user's checkpoint are looked for beside its weights.

    Raises:
        ModelNotFound: There is no such checkpoint.
        DownloadFailed: `smollm2` is not cached and cannot be downloaded.
        ContentChanged: What was downloaded is not what is expected.
    """
    if spec is None:
        spec = "fixture" if (FIXTURE / "model.safetensors").is_file() else "random"
    if spec == "smollm2":
        return _describe(spec, "checkpoint", smollm2.smollm2_directory(), smollm2.GOLDENS)
    if spec in {"fixture", "random"}:
        directory = FIXTURE if spec == "fixture" else RANDOM
        return _describe(spec, spec, directory, directory)
    path = Path(spec).expanduser()
    if not path.exists():
        raise ModelNotFound(spec, "no such name (fixture, random, smollm2), file or directory")
    if path.is_file() and path.suffix != ".safetensors":
        raise ModelNotFound(spec, "a file, but no .safetensors file")
    directory = (path if path.is_dir() else path.parent).resolve()
    return _describe(spec, "checkpoint", directory, directory)


def _describe(spec: str, kind: str, directory: Path, goldens: Path) -> ModelUnderTrial:
    try:
        found = fingerprint(directory)
    except CheckpointInvalid as error:
        raise ModelNotFound(spec, str(error)) from error
    has_goldens = all(path.is_file() for path in golden_paths(goldens, "F32"))
    name = directory.name if kind == "checkpoint" else spec
    return ModelUnderTrial(name, kind, directory, goldens if has_goldens else None, found.sha256, found.weight_bytes)
