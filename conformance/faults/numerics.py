"""Arithmetic that is nearly right: biases, norms, products, activations, precision."""

from __future__ import annotations

from dataclasses import replace

from conformance.faults.layers import change_layers, change_torch_step, change_weights
from conformance.faults.planting import Plant, fault

_BLAST = ("qual", "load", "build", "int", "perf", "err")
_IDS = {"F-QUAL-066": "ids", "F-QUAL-069": "logits"}
_LOGITS = {"F-QUAL-069": "logits"}


@fault(expects={**_IDS, "F-LOAD-061": "smallest_change", "F-QUAL-067": "ids", "F-QUAL-075": "golden"}, blast=_BLAST,
       seen_in="realizar b6090f53, da0a803f")  # fmt: skip
def qkv_bias_dropped(plant: Plant) -> None:
    """The q, k and v biases are loaded and never added."""
    change_layers(plant, lambda layer, config, _: replace(layer, qkv_bias=None))


@fault(expects=_IDS, blast=_BLAST, seen_in="aprender PMAT-114")
def key_value_bias_dropped(plant: Plant) -> None:
    """Of the fused bias only the queries' part is added."""

    def queries_only(layer, config, _):
        bias = layer.qkv_bias.clone()
        bias[config.num_heads * config.head_dim :] = 0
        return replace(layer, qkv_bias=bias)

    change_layers(plant, queries_only)


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar 1f410660")
def norm_weight_skipped(plant: Plant) -> None:
    """RMSNorm is computed without its weight."""
    from torch.nn import functional

    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(
        SafeTensorsCudaModel,
        "_norm",
        lambda norm, self, x, weight: functional.rms_norm(x, weight.shape, eps=self.config.rms_norm_eps),
    )


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar 68c632f0, aprender PMAT-094")
def layer_norm_for_rms_norm(plant: Plant) -> None:
    """The mean is subtracted: LayerNorm where RMSNorm belongs."""
    from torch.nn import functional

    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(
        SafeTensorsCudaModel,
        "_norm",
        lambda norm, self, x, weight: functional.layer_norm(x, weight.shape, weight, None, 1e-6),
    )


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar 471956dd")
def norm_weight_plus_one(plant: Plant) -> None:
    """The norm's weight is taken as an offset from one, as Gemma stores it."""
    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(SafeTensorsCudaModel, "_norm", lambda norm, self, x, weight: norm(self, x, weight + 1))


@fault(expects=_LOGITS, blast=_BLAST)
def epsilon_of_another_model(plant: Plant) -> None:
    """The norm's epsilon is a hard-coded 1e-2 instead of the configured one."""
    from torch.nn import functional

    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(
        SafeTensorsCudaModel,
        "_norm",
        lambda norm, self, x, weight: functional.rms_norm(x, weight.shape, weight, 1e-2),
    )


@fault(expects={"F-LOAD-060": "smallest_change", **_LOGITS}, blast=_BLAST)
def final_norm_skipped(plant: Plant) -> None:
    """The head reads hidden states that the final norm never saw."""
    from torch.nn import functional

    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(
        SafeTensorsCudaModel,
        "head",
        lambda head, self, hidden: functional.linear(hidden, self.weights.lm_head).float(),
    )


@fault(expects=_LOGITS, blast=_BLAST)
def gelu_for_silu(plant: Plant) -> None:
    """The gate passes GELU instead of SiLU."""
    from torch.nn import functional

    plant.replace(functional, "silu", lambda silu, x: functional.gelu(x))


@fault(expects=_IDS, blast=_BLAST)
def gate_and_up_swapped(plant: Plant) -> None:
    """The activation is applied to the up projection instead of the gate."""
    change_layers(plant, lambda layer, c, _: replace(layer, gate_up=layer.gate_up.roll(len(layer.gate_up) // 2, 0)))


@fault(expects={"F-LOAD-062": "smallest_change", "F-QUAL-066": "ids"}, blast=_BLAST)
def feed_forward_skipped(plant: Plant) -> None:
    """The feed-forward block adds nothing."""
    from reference_engine import model

    plant.replace(model, "_swiglu", lambda swiglu, x, layer: swiglu(x, layer).zero_())


@fault(expects=_IDS, blast=_BLAST)
def scores_not_scaled(plant: Plant) -> None:
    """Attention scores are not divided by the root of the head size."""
    import torch

    plant.replace(torch, "baddbmm", lambda product, *tensors, beta, alpha: product(*tensors, beta=beta, alpha=1.0))


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar e381eef8")
def scores_scaled_by_hidden_size(plant: Plant) -> None:
    """Scores are divided by the root of the hidden size instead of the head's."""
    import torch

    plant.replace(
        torch, "baddbmm", lambda product, *tensors, beta, alpha: product(*tensors, beta=beta, alpha=alpha / 4)
    )


@fault(expects=_IDS, blast=_BLAST, seen_in="llama.cpp#3364")
def query_heads_dealt_to_wrong_groups(plant: Plant) -> None:
    """Head h reads the keys of group h mod G instead of h divided by the heads in a group."""

    def dealt(layer, config, _):
        groups, size = config.num_kv_heads, config.head_dim
        count = config.num_heads * size
        order = lambda x: x.view(-1, groups, size, *x.shape[1:]).transpose(0, 1).reshape(x.shape)  # noqa: E731
        qkv, bias, out = layer.qkv.clone(), layer.qkv_bias.clone(), layer.attention_out
        qkv[:count], bias[:count] = order(qkv[:count]), order(bias[:count])
        return replace(layer, qkv=qkv, qkv_bias=bias, attention_out=order(out.T.contiguous()).T)

    change_layers(plant, dealt)


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar 2f5b5699")
def output_projection_transposed(plant: Plant) -> None:
    """The attention's output matrix is taken as [in, out]."""
    change_layers(plant, lambda layer, c, _: replace(layer, attention_out=layer.attention_out.T))


@fault(expects=_IDS, blast=_BLAST, seen_in="llama.cpp#3018, transformers#31788")
def query_rows_permuted(plant: Plant) -> None:
    """The rows of q and k are permuted as GGUF of Llama wants them, and rotated as if they were not."""

    def permuted(layer, config, _):
        rows = (config.num_heads + config.num_kv_heads) * config.head_dim
        order = lambda x: x.view(-1, 2, config.head_dim // 2, *x.shape[1:]).transpose(1, 2).reshape(x.shape)  # noqa: E731
        qkv, bias = layer.qkv.clone(), layer.qkv_bias.clone()
        half = config.num_heads * config.head_dim
        qkv[:half], bias[:half] = order(qkv[:half]), order(bias[:half])
        assert rows > half
        return replace(layer, qkv=qkv, qkv_bias=bias)

    change_layers(plant, permuted)


@fault(expects={"F-LOAD-057": "smallest_change", "F-QUAL-066": "ids"}, blast=_BLAST, seen_in="aprender#197, #235")
def last_layer_skipped(plant: Plant) -> None:
    """The last layer is loaded and adds nothing."""

    def skipped(layer, config, number):
        if number < config.num_layers - 1:
            return layer
        return replace(layer, attention_out=layer.attention_out * 0, down=layer.down * 0)

    change_layers(plant, skipped)


@fault(expects=_IDS, blast=_BLAST)
def layers_in_order_of_names(plant: Plant) -> None:
    """Layers are taken in another order than their numbers: the first two change places."""
    change_weights(plant, lambda weights, c: replace(weights, layers=(*weights.layers[1::-1], *weights.layers[2:])))


@fault(expects=_IDS, blast=_BLAST)
def norms_of_a_layer_swapped(plant: Plant) -> None:
    """The attention's norm weight is used before the feed-forward block, and the other way round."""
    change_layers(
        plant,
        lambda layer, c, _: replace(layer, attention_norm=layer.mlp_norm, mlp_norm=layer.attention_norm),
    )


@fault(expects=_LOGITS, blast=_BLAST)
def logits_capped(plant: Plant) -> None:
    """Logits are capped softly, as Gemma's are: the order stays, the values do not."""
    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(SafeTensorsCudaModel, "head", lambda head, self, x: 10 * (head(self, x) / 10).tanh())


@fault(expects=_LOGITS, blast=_BLAST, seen_in="realizar 2118cce0")
def logits_too_large(plant: Plant) -> None:
    """Logits are 36 times too large; the best id stays the best."""
    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(SafeTensorsCudaModel, "head", lambda head, self, x: 36 * head(self, x))


@fault(expects=_LOGITS, blast=_BLAST)
def products_in_bfloat16(plant: Plant) -> None:
    """F32 products are computed in bfloat16 without a word."""
    from torch.nn import functional

    def rounded(linear, x, weight, bias=None):
        return linear(x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()).to(x.dtype)

    plant.replace(functional, "linear", rounded)


@fault(expects=_LOGITS, blast=_BLAST)
def embedding_scaled(plant: Plant) -> None:
    """Embeddings are multiplied by the root of the hidden size, as Gemma's are."""
    from torch.nn import functional

    plant.replace(functional, "embedding", lambda look_up, ids, table: look_up(ids, table) * table.shape[1] ** 0.5)


@fault(expects=_IDS, blast=_BLAST)
def embedding_row_off_by_one(plant: Plant) -> None:
    """Each id reads the row before its own."""
    from torch.nn import functional

    plant.replace(functional, "embedding", lambda look_up, ids, table: look_up((ids - 1).clamp(min=0), table))


@fault(expects={"F-QUAL-066": "ids", "F-QUAL-070": "logits"}, blast=_BLAST, seen_in="higgs#203, mlxcel#1001")
def causal_mask_missing(plant: Plant) -> None:
    """Tokens of a prompt see those after them."""
    from reference_engine import model

    plant.replace(model, "_causal_mask", lambda mask, *arguments: mask(*arguments).zero_())


@fault(expects={"F-QUAL-070": "logits", "F-QUAL-075": "logits"}, blast=_BLAST)
def causal_mask_one_too_far(plant: Plant) -> None:
    """Each token sees the one after it."""
    from reference_engine import model

    plant.replace(model, "_causal_mask", lambda mask, positions, *rest: mask(positions + 1, *rest))


@fault(expects={"F-QUAL-070": "logits"}, blast=_BLAST)
def window_of_512(plant: Plant) -> None:
    """Attention sees the last 512 positions only, a sliding window that the configuration does not have."""
    from reference_engine import model

    def windowed(mask, positions, length, *rest):
        import torch

        early = torch.arange(length, device=positions.device) <= positions[:, None] - 512
        return mask(positions, length, *rest).masked_fill_(early, float("-inf"))

    plant.replace(model, "_causal_mask", windowed)


@fault(expects={"F-QUAL-070": "logits"}, blast=_BLAST, seen_in="candle#3743")
def second_chunk_alone(plant: Plant) -> None:
    """Prefill goes in chunks of 512, and a later chunk does not see the ones before it."""
    from reference_engine import model

    model.PREFILL_CHUNK = 512

    def alone(mask, positions, length, *rest):
        found = mask(positions, length, *rest)
        if len(positions) > 1 and int(positions[0]) > 0:
            found[:, : int(positions[0])] = float("-inf")
        return found

    plant.replace(model, "_causal_mask", alone)


@fault(
    expects={"F-QUAL-074": "however_reached"}, blast=_BLAST, seen_in="defaults of llama.cpp and of generation_config"
)
def repetition_penalised(plant: Plant) -> None:
    """Ids that the sequence already has are made less likely by a tenth, though nobody asked for it."""
    from reference_engine import generate

    def penalised(_original, decoding, request, limit, _read_every):
        seen, logits = set(request.prompt_ids), decoding.logits
        for count in range(1, limit + 1):
            row = logits[: decoding.id_limit].clone()
            index = [token for token in seen if token < len(row)]
            row[index] = row[index].where(row[index] < 0, row[index] / 1.1)
            token = int(row.argmax())
            seen.add(token)
            yield token
            if count < limit:
                decoding.feed(token)
                logits = decoding.step()

    plant.replace(generate, "_greedy_ids", penalised)


@fault(expects=_IDS, blast=_BLAST)
def epsilon_outside_the_root(plant: Plant) -> None:
    """The norm's epsilon is added to the root instead of under it."""
    from reference_engine.model import SafeTensorsCudaModel

    def outside(norm, self, x, weight):
        return x / (x.square().mean(-1, keepdim=True).sqrt() + self.config.rms_norm_eps) * weight

    plant.replace(SafeTensorsCudaModel, "_norm", outside)


@fault(expects={"F-QUAL-074": "however_reached"}, blast=_BLAST)
def cache_of_eight_bits(plant: Plant) -> None:
    """Decoding reads the prompt's keys and values as integers of eight bits, without a word."""
    import torch

    from reference_engine.decode import Decoding

    def begun(begin, self, *arguments):
        begin(self, *arguments)
        pairs = self._state.cache.pairs
        with torch.inference_mode():
            step = pairs.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 127
            pairs.copy_((pairs / step).round() * step)

    plant.replace(Decoding, "__init__", begun)


@fault(expects={"F-QUAL-074": "however_reached"}, blast=_BLAST)
def decoded_states_in_bfloat16(plant: Plant) -> None:
    """While decoding, the head reads hidden states that were rounded to bfloat16."""

    def rounded(original, model, state, length):
        hidden = model.forward(state.token, state.position, length, state.cache)
        return model.head(hidden.bfloat16().to(hidden.dtype))[0]

    change_torch_step(plant, rounded)
