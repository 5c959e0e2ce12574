"""Loading that fills in, leaves out, or keeps what it should not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msgspec import structs

from conformance.faults.planting import Plant, fault

_BLAST = ("qual", "load", "build", "int", "perf", "err")


def _config(plant, change):
    from reference_engine import model

    plant.replace(model, "read_config", lambda read, files: change(read(files)))


@fault(expects={"F-LOAD-057": "count"}, blast=_BLAST, seen_in="aprender#197, realizar 6673f28f")
def one_layer_too_few(plant: Plant) -> None:
    """One layer fewer is read from the configuration than it has."""
    _config(plant, lambda config: structs.replace(config, num_layers=config.num_layers - 1))


@fault(expects={"F-LOAD-059": "answers", "F-QUAL-066": "ids"}, blast=_BLAST,
       seen_in="realizar 30f43294, aprender#2309")  # fmt: skip
def tied_head_of_zeros(plant: Plant) -> None:
    """A head that the file ties to the embedding is made of zeros."""
    from reference_engine import model

    def zeros(load, checkpoint, config, *rest):
        weights = load(checkpoint, config, *rest)
        tied = weights.lm_head is weights.embedding
        return replace(weights, lm_head=weights.embedding * 0) if tied else weights

    plant.replace(model, "load_weights", zeros)


@fault(expects={"F-LOAD-059": "head_is_used"}, blast=_BLAST)
def untied_head_ignored(plant: Plant) -> None:
    """The embedding serves as the head, even where the file has one of its own."""
    from reference_engine import model

    def always_tied(load, *arguments):
        weights = load(*arguments)
        return replace(weights, lm_head=weights.embedding)

    plant.replace(model, "load_weights", always_tied)


@fault(expects={"F-LOAD-057": "smallest_change", "F-LOAD-058": "smallest_change", "F-LOAD-060": "smallest_change"},
       blast=_BLAST)  # fmt: skip
def weights_cached_by_size(plant: Plant) -> None:
    """A checkpoint of the same size as an earlier one is taken for it; its file is not read again."""
    from reference_engine import model

    kept = {}

    def cached(load, checkpoint, config, device, dtype, *rest):
        key = (config.num_layers, len(checkpoint.tensors), dtype)
        weights = load(checkpoint, config, device, dtype, *rest)
        first = kept.setdefault(key, _copied(weights))
        return replace(first, storages=weights.storages)

    plant.replace(model, "load_weights", cached)


@fault(expects={"F-LOAD-056": "answers"}, blast=_BLAST, seen_in="vmlx-swift#217")
def later_shards_are_zeros(plant: Plant) -> None:
    """Of a sharded checkpoint only the first file is read; the other tensors are zeros."""
    from reference_engine import model

    def first_only(load, checkpoint, *rest):
        weights = load(checkpoint, *rest)
        files = sorted({located.file.path for located in checkpoint.tensors.values()})
        for name, storage in weights.storages.items():
            if checkpoint.tensors[name].file.path != files[0]:
                storage.tensor.zero_()
        return weights

    plant.replace(model, "load_weights", first_only)


@fault(expects={"F-LOAD-056": "weight_bytes"}, blast=_BLAST)
def weight_bytes_invented(plant: Plant) -> None:
    """The bytes of the weights are told as three times what they are."""
    from reference_engine.weights import Weights

    plant.replace(Weights, "nbytes", lambda nbytes, self: 3 * nbytes(self))


@fault(expects={"F-LOAD-063": "spelling"}, blast=_BLAST)
def new_spelling_of_theta_unknown(plant: Plant) -> None:
    """`rope_parameters` is not read; theta falls back to its default."""
    from reference_engine import config

    plant.replace(
        config,
        "_rope",
        lambda _rope, _path, said: (said.rope_theta, None),
    )


@fault(expects={"F-LOAD-063": "fields"}, blast=_BLAST, seen_in="Qwen3#927, vLLM#1136")
def generation_config_ignored(plant: Plant) -> None:
    """Stop ids of generation_config.json are not read."""
    _config(plant, lambda config: structs.replace(config, eos_token_ids=config.eos_token_ids[:1]))


@fault(expects={"F-LOAD-065": "typed"}, blast=_BLAST)
def shapes_unchecked(plant: Plant) -> None:
    """Tensors are taken whatever their shape."""
    from reference_engine import weights
    from reference_engine.errors import ShapeMismatch

    def unchecked(check, *arguments):
        try:
            check(*arguments)
        except ShapeMismatch:
            return

    plant.replace(weights, "_check", unchecked)


@fault(expects={"F-LOAD-064": "rows"}, blast=_BLAST)
def vocabulary_of_the_tokenizer(plant: Plant) -> None:
    """The embedding is told to have the tokenizer's rows instead of the padded ones."""
    from conformance.engines.reference import ReferenceEngine
    from conformance.protocol import messages

    def shortened(tensors, self, params):
        return messages.TensorList([
            messages.TensorEntry(t.name, t.dtype, [t.shape[0] - 1, *t.shape[1:]] if "embed" in t.name else t.shape)
            for t in tensors(self, params).tensors
        ])  # fmt: skip

    plant.replace(ReferenceEngine, "model_tensors", shortened)


def _copied(weights):
    """The same weights in memory of their own."""
    layers = tuple(
        replace(layer, **{name: tensor.clone() for name, tensor in vars(layer).items() if tensor is not None})
        for layer in weights.layers
    )
    return replace(
        weights,
        layers=layers,
        embedding=weights.embedding.clone(),
        final_norm=weights.final_norm.clone(),
        lm_head=weights.lm_head.clone(),
    )


def _setting_unread(plant, name):
    from reference_engine import config

    def without(spelled, raw):
        return {said: value for said, value in spelled(raw).items() if said != name}

    plant.replace(config, "_in_one_spelling", without)


@fault(expects={"F-LOAD-063": "settings"}, blast=_BLAST)
def activation_unread(plant: Plant) -> None:
    """`hidden_act` is not read: what is to be GELU is SiLU."""
    _setting_unread(plant, "hidden_act")


@fault(expects={"F-LOAD-063": "settings"}, blast=_BLAST)
def quantization_unread(plant: Plant) -> None:
    """`quantization_config` is not read: quantized weights would be taken for what they look like."""
    _setting_unread(plant, "quantization_config")


@fault(expects={"F-LOAD-063": "settings"}, blast=_BLAST, seen_in="llama.cpp before Llama 3.1")
def rope_scaling_unread(plant: Plant) -> None:
    """`rope_scaling` is not read: positions are those of the model before its context was extended."""
    _setting_unread(plant, "rope_scaling")


@fault(expects={"F-LOAD-063": "settings"}, blast=_BLAST, seen_in="llama.cpp, of Qwen2")
def window_unread(plant: Plant) -> None:
    """A sliding window that the configuration switches on is not used."""
    from reference_engine import config

    plant.replace(config, "_windows", lambda windows, *given: tuple(None for _ in windows(*given)))


@fault(expects={"F-LOAD-063": "heads"}, blast=_BLAST)
def groups_of_two_heads(plant: Plant) -> None:
    """Keys and values are found as if two query heads shared them, however many do."""
    from reference_engine.model import SafeTensorsCudaModel

    def dealt(attention, self, x, layer, *rest):
        groups, heads, size = self.config.num_kv_heads, self.config.num_heads, self.config.head_dim
        read = [group * (heads // groups) // 2 % groups for group in range(groups)]
        first = [heads + part * groups + group for part in range(2) for group in read]
        rows = [head * size + row for head in (*range(heads), *first) for row in range(size)]
        return attention(self, x, replace(layer, qkv=layer.qkv[rows], qkv_bias=layer.qkv_bias[rows]), *rest)

    plant.replace(SafeTensorsCudaModel, "_attention", dealt)


@fault(expects={"F-LOAD-056": "answers"}, blast=_BLAST, seen_in="mlx-lm, which reads all files of a name's pattern")
def shards_by_their_names(plant: Plant) -> None:
    """Of a sharded checkpoint every weights file in the directory is read, whether its index names it or not."""
    from reference_engine import checkpoint

    def all_of_them(open_files, self):
        open_files(self)
        if not self.path.name.endswith(checkpoint.INDEX_SUFFIX):
            return
        for path in sorted(self.directory.glob("*.safetensors")):
            file = self._files.enter_context(checkpoint.SafeTensorsFile(path))
            self.tensors |= {name: checkpoint.Located(file, entry) for name, entry in file.tensors.items()}

    plant.replace(checkpoint.Checkpoint, "_open_files", all_of_them)


@fault(expects={"F-ERR-093": "typed"}, blast=_BLAST)
def absent_shard_filled_in(plant: Plant) -> None:
    """What lies in a shard that is not there is made of other bytes of the checkpoint."""
    from reference_engine import checkpoint

    def patched(typed, path, *said):
        found = typed(path, *said)
        names = found.weight_map
        found.weight_map = {tensor: shard for tensor, shard in names.items() if Path(path).with_name(shard).exists()}
        return found

    plant.replace(checkpoint, "typed", patched)
    _missing_taken_from_elsewhere(plant)


def _missing_taken_from_elsewhere(plant):
    import math

    from reference_engine import weights

    def lenient(check, checkpoint, name, shape):
        if name not in checkpoint.tensors and checkpoint.path.suffix == ".json":
            some = max(checkpoint.tensors.values(), key=lambda located: located.entry.nbytes)
            width = some.entry.nbytes // math.prod(some.entry.shape)
            entry = some.entry._replace(name=name, shape=shape, begin=0, end=math.prod(shape) * width)
            checkpoint.tensors[name] = some._replace(entry=entry)
        check(checkpoint, name, shape)

    plant.replace(weights, "_check", lenient)


@fault(expects={"F-LOAD-056": "engine"}, blast=_BLAST, seen_in="caches of models, whose files are links")
def links_followed_first(plant: Plant) -> None:
    """A link to the weights is followed before the files beside it are looked for."""
    from reference_engine import checkpoint

    plant.replace(checkpoint, "weights_path", lambda path_of, path: path_of(path).resolve())


@fault(expects={"F-LOAD-056": "engine"}, blast=_BLAST)
def paths_of_plain_letters_only(plant: Plant) -> None:
    """A path with a blank, or with a letter beyond ASCII, leads nowhere."""
    import os

    from reference_engine import errors, files

    def plain(open_regular, path):
        name = os.fspath(path)
        if " " in name or not name.isascii():
            raise errors.FileNotFound(name)
        return open_regular(path)

    plant.replace(files, "open_regular", plain)


@fault(expects={"F-LOAD-056": "widened"}, blast=_BLAST)
def f16_weights_through_bf16(plant: Plant) -> None:
    """A model in F16 that is computed in F32 gets there through BF16, and loses three bits."""
    from reference_engine import weights

    def rounded(fill, moves, device):
        fill(moves, device)
        for located, target in moves:
            if located.entry.dtype == "F16" and target.itemsize == 4:
                target.copy_(target.bfloat16())

    plant.replace(weights, "_fill", rounded)
