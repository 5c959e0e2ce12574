"""GGUF and APR files read as if one rule of theirs were another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.faults.planting import Plant, fault

_GGUF, _APR = ("F-QUAL-076", "F-LOAD-063"), ("F-QUAL-077", "F-LOAD-063")


def _config(plant: Plant, reader: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change what a GGUF or APR file says in the words of config.json."""
    from reference_engine.formats import apr_file, gguf_file

    if reader == "gguf":
        plant.replace(gguf_file, "_config", lambda read, *arguments: change(read(*arguments)))
    else:
        plant.replace(apr_file._Metadata, "config", lambda read, *arguments: change(read(*arguments)))


def _entries(plant: Plant, reader: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the tensors that a GGUF or APR file lists."""
    from reference_engine.formats.apr_file import AprFile
    from reference_engine.formats.gguf_file import GgufFile
    from reference_engine.header import Header

    def changed(read: Any, self: Any) -> Any:
        header = read(self)
        return Header(change(dict(header.tensors)), header.metadata, header.data_start)

    plant.replace(GgufFile if reader == "gguf" else AprFile, "_read_header", changed)


def _swapped(tensors: dict[str, Any]) -> dict[str, Any]:
    one, other = (tensors[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1))
    moved = one._replace(begin=other.begin, end=other.end), other._replace(begin=one.begin, end=one.end)
    return tensors | {entry.name: entry for entry in moved}


@fault(expects={"F-QUAL-076": "logits"}, blast=_GGUF, seen_in="realizar d173967d")
def gguf_theta_defaulted(plant: Plant) -> None:
    """The rotary base of a GGUF file is 10000 whatever its keys say."""
    _config(plant, "gguf", lambda config: config | {"rope_theta": 10000.0})


@fault(expects={"F-QUAL-077": "logits"}, blast=_APR, seen_in="realizar d173967d")
def apr_theta_defaulted(plant: Plant) -> None:
    """The rotary base of an APR file is 10000 whatever its metadata say."""
    _config(plant, "apr", lambda config: config | {"rope_theta": 10000.0})


@fault(expects={"F-QUAL-076": "logits"}, blast=_GGUF)
def gguf_epsilon_defaulted(plant: Plant) -> None:
    """The norm's epsilon of a GGUF file is not read: a thousandth stands in its place."""
    _config(plant, "gguf", lambda config: config | {"rms_norm_eps": 1e-3})


@fault(expects={"F-QUAL-076": "ids"}, blast=_GGUF, seen_in="realizar 7adb5595, GH-170")
def gguf_without_stop_ids(plant: Plant) -> None:
    """The stop ids that a GGUF file names are not read."""
    _config(plant, "gguf", lambda config: config | {"eos_token_id": []})


@fault(expects={"F-QUAL-077": "ids"}, blast=_APR, seen_in="realizar ea30dd09, a499da72")
def apr_without_stop_ids(plant: Plant) -> None:
    """The stop ids that an APR file names are not read."""
    _config(plant, "apr", lambda config: config | {"eos_token_id": []})


@fault(expects={"F-QUAL-077": "ids"}, blast=_APR, seen_in="aprender#197, #235")
def apr_one_layer_too_few(plant: Plant) -> None:
    """An APR file's last layer is not used."""
    _config(plant, "apr", lambda config: config | {"num_hidden_layers": config["num_hidden_layers"] - 1})


@fault(expects={"F-QUAL-077": "ids"}, blast=_APR, seen_in="aprender GH-171")
def apr_without_merges(plant: Plant) -> None:
    """Of an APR file's tokenizer only the vocabulary is read: every text becomes single bytes."""
    from reference_engine.formats.apr_file import _Metadata

    plant.replace(_Metadata, "vocabulary", lambda read, self: read(self)._replace(merges=[]))


@fault(expects={"F-QUAL-076": "ids"}, blast=_GGUF, seen_in="aprender GH-171")
def gguf_without_merges(plant: Plant) -> None:
    """Of a GGUF file's tokenizer only the vocabulary is read: every text becomes single bytes."""
    from reference_engine.formats import gguf_file

    plant.replace(gguf_file, "_vocabulary", lambda read, *arguments: read(*arguments)._replace(merges=[]))


@fault(expects={"F-QUAL-076": "ids"}, blast=_GGUF, seen_in="llama.cpp#3018, transformers#31788")
def gguf_rows_put_back_that_never_moved(plant: Plant) -> None:
    """Rows of q and k are put back in order as for Llama, in a Qwen2 file whose rows were never moved."""
    from reference_engine.formats import gguf_file

    def moved(_original: Any, _architecture: str, name: str, heads: int, kv_heads: int) -> int:
        if not name.endswith(".weight"):
            return 0
        return heads if ".q_proj." in name else kv_heads if ".k_proj." in name else 0

    plant.replace(gguf_file, "reordered_heads", moved)


@fault(expects={"F-QUAL-076": "ids"}, blast=_GGUF)
def gguf_layers_swapped(plant: Plant) -> None:
    """In a GGUF file the first two layers have each other's up projection."""
    _entries(plant, "gguf", _swapped)


@fault(expects={"F-QUAL-077": "ids"}, blast=_APR)
def apr_layers_swapped(plant: Plant) -> None:
    """In an APR file the first two layers have each other's up projection."""
    _entries(plant, "apr", _swapped)


@fault(expects={"F-QUAL-076": "changed_weight", "F-QUAL-077": "changed_weight"}, blast=(*_GGUF, *_APR))
def safetensors_beside_is_read(plant: Plant) -> None:
    """Where a SafeTensors file lies beside a GGUF or APR file, it is read in that file's place."""
    from reference_engine import checkpoint

    def beside(path_of: Any, path: Any) -> Any:
        found = path_of(path)
        other = found.parent / checkpoint.SINGLE_FILE
        return other if found.suffix in {".gguf", ".apr"} and other.exists() else found

    plant.replace(checkpoint, "weights_path", beside)


@fault(expects={"F-QUAL-076": "changed_weight", "F-QUAL-077": "changed_weight"}, blast=(*_GGUF, *_APR))
def first_file_of_a_directory_is_cached(plant: Plant) -> None:
    """A GGUF or APR file is taken for one of the same name that was loaded before, wherever it lies."""
    from reference_engine import checkpoint

    seen: dict[str, Any] = {}

    def remembered(path_of: Any, path: Any) -> Any:
        found = path_of(path)
        return seen.setdefault(found.name, found) if found.suffix in {".gguf", ".apr"} else found

    plant.replace(checkpoint, "weights_path", remembered)


@fault(expects={"F-QUAL-076": "engine", "F-QUAL-077": "engine"}, blast=(*_GGUF, *_APR, "qual", "load"))
def format_by_name_alone(plant: Plant) -> None:
    """Only files called `.safetensors` are opened; the content is never looked at."""
    from reference_engine import checkpoint
    from reference_engine.files import SafeTensorsFile

    plant.replace(checkpoint, "open_tensors", lambda _original, path: SafeTensorsFile(path))


def _head_from_embedding(tensors: dict[str, Any]) -> dict[str, Any]:
    head = "lm_head.weight"
    return tensors | {head: tensors["model.embed_tokens.weight"]._replace(name=head)} if head in tensors else tensors


@fault(expects={"F-QUAL-076": "other_writings"}, blast=_GGUF)
def gguf_head_unread(plant: Plant) -> None:
    """A GGUF file's own output matrix is not read; the embedding serves as one."""
    _entries(plant, "gguf", _head_from_embedding)


@fault(expects={"F-QUAL-077": "other_writings"}, blast=_APR)
def apr_head_unread(plant: Plant) -> None:
    """An APR file's own head is not read; the embedding serves as one."""
    _entries(plant, "apr", _head_from_embedding)


def _taken_for(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {
        name: entry._replace(dtype=new) if entry.dtype == old else entry for name, entry in tensors.items()
    }


@fault(expects={"F-QUAL-076": "other_writings"}, blast=_GGUF, seen_in="realizar c55c7649")
def gguf_bf16_as_f16(plant: Plant) -> None:
    """BF16 of a GGUF file is taken for F16."""
    _entries(plant, "gguf", _taken_for("BF16", "F16"))


@fault(expects={"F-QUAL-077": "other_writings"}, blast=_APR, seen_in="realizar cc793313")
def apr_f16_as_bf16(plant: Plant) -> None:
    """F16 of an APR file is taken for BF16."""
    _entries(plant, "apr", _taken_for("F16", "BF16"))


@fault(expects={"F-QUAL-076": "engine"}, blast=_GGUF)
def gguf_alignment_assumed(plant: Plant) -> None:
    """The data of a GGUF file is looked for at the next multiple of 32, whatever alignment the file names."""
    from reference_engine.formats import gguf_file

    usual = 32

    def assumed(walk: Any, *arguments: Any) -> Any:
        header = walk(*arguments)
        begin = header.data_start - (header.alignment - usual if header.alignment > usual else 0)
        return header._replace(data_start=begin, alignment=usual)

    plant.replace(gguf_file, "walk_header", assumed)
