"""What a request leaves behind, stops at, or takes from another: caches, stop ids, prompts, text."""

from __future__ import annotations

from dataclasses import replace

from conformance.faults.layers import Reconfigured
from conformance.faults.planting import Plant, fault

_BLAST = ("qual", "load", "build", "int", "perf", "err")


def _request(plant, change):
    """Generate for `change(request)` instead of the request."""
    from reference_engine.engine import Engine

    plant.replace(Engine, "infer", lambda infer, self, request, *rest: infer(self, change(request), *rest))


def _result(plant, change):
    from reference_engine.engine import Engine

    plant.replace(Engine, "infer", lambda infer, self, request, *rest: change(infer(self, request, *rest)))


@fault(expects={"F-QUAL-069": "ids", "F-QUAL-067": "ids"}, blast=_BLAST, seen_in="realizar cb00153b, mistral.rs#126")
def answer_of_an_equally_long_prompt(plant: Plant) -> None:
    """A prompt gets the answer of an earlier one of the same length."""
    from reference_engine.engine import Engine

    kept = {}

    def remembered(infer, self, request, *rest):
        key = (len(request.prompt_ids) // 64, request.max_tokens)
        if key not in kept:
            kept[key] = infer(self, request, *rest)
        return kept[key]

    plant.replace(Engine, "infer", remembered)


@fault(expects={"F-QUAL-080": "ids"}, blast=_BLAST, seen_in="realizar a3aa8fef, mistral.rs#1026, candle-vllm#12")
def conversation_not_forgotten(plant: Plant) -> None:
    """The tokens of the last request stand before those of the next one."""
    from reference_engine.engine import Engine

    kept = []

    def prepended(infer, self, request, *rest):
        asked = replace(request, prompt_ids=[*kept[-256:], *request.prompt_ids])
        kept[:] = request.prompt_ids
        return replace(infer(self, asked, *rest), prompt_tokens=len(request.prompt_ids))

    plant.replace(Engine, "infer", prepended)


@fault(expects={"F-QUAL-066": "ids"}, blast=_BLAST, seen_in="realizar 2f5b5699")
def last_prompt_token_twice(plant: Plant) -> None:
    """The last token of a prompt is processed twice."""
    _request(plant, lambda request: replace(request, prompt_ids=[*request.prompt_ids, *request.prompt_ids[-1:]]))


@fault(expects={"F-QUAL-066": "ids"}, blast=_BLAST, seen_in="realizar 2025c65c")
def prefill_fills_no_cache(plant: Plant) -> None:
    """Prefill leaves the KV cache empty; only decoding writes to it."""
    from reference_engine.decode import Decoding

    def emptied(begin, self, *arguments):
        begin(self, *arguments)
        self._state.cache.pairs.data.zero_()

    plant.replace(Decoding, "__init__", emptied)


@fault(expects={"F-QUAL-066": "ids"}, blast=_BLAST)
def one_cache_for_all_layers(plant: Plant) -> None:
    """All layers write their keys and values to the same place."""
    from reference_engine.model import KvCache

    def shared(build, self, config, *rest):
        build(self, config, *rest)
        self.pairs = self.pairs[:1].expand(config.num_layers, -1, -1, -1, -1)

    plant.replace(KvCache, "__init__", shared)


@fault(expects={"F-QUAL-070": "prompt_tokens"}, blast=_BLAST)
def long_prompts_lose_their_start(plant: Plant) -> None:
    """Of a prompt only the last 512 tokens are read."""
    _request(plant, lambda request: replace(request, prompt_ids=request.prompt_ids[-512:]))


@fault(expects={"F-QUAL-070": "ids"}, blast=_BLAST)
def long_prompts_lose_their_end(plant: Plant) -> None:
    """Of a prompt only the first 512 tokens are read."""
    _request(plant, lambda request: replace(request, prompt_ids=request.prompt_ids[:512]))


def _stopping(plant, eos):
    from reference_engine import generate

    def run(original, model, *rest):
        return original(Reconfigured(model, eos_token_ids=eos(model.config.eos_token_ids)), *rest)

    plant.replace(generate, "_run", run)


@fault(expects={"F-QUAL-071": "moved"}, blast=_BLAST, seen_in="exllamav2#449, TensorRT-LLM#10389")
def first_stop_id_only(plant: Plant) -> None:
    """Of a list of stop ids only the first is honoured."""
    _stopping(plant, lambda ids: ids[:1])


@fault(expects={"F-QUAL-071": "moved"}, blast=_BLAST, seen_in="realizar 7adb5595, b2ba5aa7")
def stop_id_hard_coded(plant: Plant) -> None:
    """The stop ids are those of the first model ever loaded."""
    first = []
    _stopping(plant, lambda ids: first[0] if first else first.append(ids) or ids)


@fault(expects={"F-QUAL-071": "stops"}, blast=_BLAST, seen_in="realizar aff3c2b3, 68d741c4")
def no_stop_ids(plant: Plant) -> None:
    """The list of stop ids is empty, so that the answer goes on into further turns."""
    _stopping(plant, lambda ids: ())


@fault(expects={"F-QUAL-071": "not_emitted"}, blast=_BLAST)
def stop_id_emitted(plant: Plant) -> None:
    """The stop id is among the ids of the answer."""
    _result(plant, lambda r: r if r.stop_id is None else replace(r, ids=[*r.ids, r.stop_id]))


@fault(expects={"F-QUAL-071": "stops"}, blast=_BLAST)
def finish_reason_always_length(plant: Plant) -> None:
    """The reason for the end is told as `length`, whatever it was."""
    _result(plant, lambda r: replace(r, finish_reason="length"))


@fault(expects={"F-LOAD-064": "never_produced"}, blast=_BLAST, seen_in="pegainfer#673, vLLM#340")
def padded_ids_chosen(plant: Plant) -> None:
    """Ids that only pad the vocabulary may be chosen."""
    from reference_engine import engine

    plant.replace(engine, "generate", lambda generate, model, request, *_: generate(model, request))


@fault(expects={"F-QUAL-068": "empty"}, blast=_BLAST, seen_in="realizar d07c4255")
def empty_prompt_unchecked(plant: Plant) -> None:
    """An empty prompt is not refused and breaks inside."""
    from reference_engine.model import SafeTensorsCudaModel

    plant.replace(SafeTensorsCudaModel, "check_ids", lambda check, self, ids: None)


@fault(expects={"F-QUAL-069": "one_token"}, blast=_BLAST)
def single_token_prompt_doubled(plant: Plant) -> None:
    """A prompt of one token is padded with itself to two."""
    _request(plant, lambda r: replace(r, prompt_ids=[*r.prompt_ids] * (2 if len(r.prompt_ids) == 1 else 1)))


@fault(expects={"F-QUAL-078": "prompt_ids"}, blast=_BLAST, seen_in="llama.cpp#7107, llama-cpp-python#1501")
def first_token_twice(plant: Plant) -> None:
    """The rendered prompt begins with its first special token twice."""
    from reference_engine.engine import Engine

    def doubled(render, self, messages):
        found = render(self, messages)
        return found._replace(ids=[found.ids[0], *found.ids])

    plant.replace(Engine, "render", doubled)


@fault(expects={"F-QUAL-079": "ids"}, blast=_BLAST, seen_in="ollama#6873, llama-cpp-python#1697")
def system_prompt_ignored(plant: Plant) -> None:
    """System messages are left out of the prompt."""
    from reference_engine.engine import Engine

    plant.replace(
        Engine, "render", lambda render, self, messages: render(self, [m for m in messages if m["role"] != "system"])
    )


@fault(expects={"F-QUAL-080": "ids"}, blast=_BLAST)
def only_the_last_turn(plant: Plant) -> None:
    """Of a conversation only the last turn is rendered."""
    from reference_engine.engine import Engine

    plant.replace(Engine, "render", lambda render, self, messages: render(self, messages[-1:]))


@fault(expects={"F-QUAL-073": "text"}, blast=_BLAST, seen_in="exo#1691, ferrox#124")
def text_token_by_token(plant: Plant) -> None:
    """Each token is decoded on its own, which splits characters of several bytes."""
    from reference_engine.tokenizer import Tokenizer

    plant.replace(Tokenizer, "decode_complete", lambda _, self, ids: "".join(self.decode([i]) for i in ids))


@fault(expects={"F-QUAL-073": "garbage", "F-QUAL-067": "garbage"}, blast=_BLAST, seen_in="realizar 40766744")
def byte_markers_in_text(plant: Plant) -> None:
    """Blanks are printed as the marker that byte-level vocabularies keep for them."""
    _result(plant, lambda r: replace(r, text=r.text.replace(" ", "\u0120")))


@fault(expects={"F-QUAL-072": "loop"}, blast=_BLAST)
def answer_loops(plant: Plant) -> None:
    """Past eight ids the last four repeat without end."""

    def looped(result):
        ids = [*result.ids[:8]]
        while len(ids) < len(result.ids):
            ids.append(ids[-4])
        return replace(result, ids=ids)

    _result(plant, looped)


@fault(expects={"F-QUAL-066": "ids"}, blast=_BLAST, seen_in="aprender#340")
def tokens_invented(plant: Plant) -> None:
    """Ids are counted up from the last of the prompt; the model is never asked."""
    from reference_engine.engine import Engine

    def counted(infer, self, request, *rest):
        found = infer(self, replace(request, max_tokens=1), *rest)
        start = request.prompt_ids[-1]
        return replace(found, ids=[(start + i) % 200 for i in range(1, request.max_tokens + 1)])

    plant.replace(Engine, "infer", counted)


@fault(expects={"F-QUAL-067": "text"}, blast=_BLAST)
def prompt_echoed(plant: Plant) -> None:
    """The text of an answer begins with the prompt's."""
    from reference_engine.engine import Engine

    def echoed(infer, self, request, *rest):
        found = infer(self, request, *rest)
        return replace(found, text=self.require_tokenizer().decode(list(request.prompt_ids)) + found.text)

    plant.replace(Engine, "infer", echoed)


def _of_format(plant, suffix):
    from reference_engine import model

    def unbiased(load, checkpoint, *rest):
        weights = load(checkpoint, *rest)
        if str(checkpoint.path).endswith(suffix):
            for layer in weights.layers:
                layer.qkv_bias.zero_()
        return weights

    plant.replace(model, "load_weights", unbiased)


@fault(expects={"F-QUAL-076": "ids"}, blast=_BLAST)
def gguf_without_biases(plant: Plant) -> None:
    """From a GGUF file the q, k and v biases are not taken."""
    _of_format(plant, ".gguf")


@fault(expects={"F-QUAL-077": "ids"}, blast=_BLAST, seen_in="realizar e5a2c3e8")
def apr_without_biases(plant: Plant) -> None:
    """From an APR file the fused q, k and v biases are not taken."""
    _of_format(plant, ".apr")


@fault(expects={"F-QUAL-074": "ids"}, blast=_BLAST, seen_in="vLLM#5898, #15437, #23138")
def greedy_is_drawn(plant: Plant) -> None:
    """At temperature 0 the second best id is taken now and then."""
    import random

    from reference_engine import generate

    dice = random.SystemRandom()

    def drawn(_greedy, decoding, _request, limit, _every):
        logits = decoding.logits
        for count in range(1, limit + 1):
            seen = logits[: decoding.id_limit].clone()
            if dice.random() < 0.1:
                seen[int(seen.argmax())] = float("-inf")
            token = generate.best_id(seen, decoding.position - 1)
            yield token
            if count < limit:
                decoding.feed(token)
                logits = decoding.step()

    plant.replace(generate, "_greedy_ids", drawn)


@fault(expects={"F-QUAL-071": "at_the_limit"}, blast=_BLAST)
def stop_at_the_limit_unseen(plant: Plant) -> None:
    """The last id that is allowed is not looked at: a stop id there is emitted, and the reason is `length`."""
    from reference_engine.engine import Engine

    def unseen(infer, self, request, *rest):
        told = infer(self, request, *rest)
        if told.stop_id is None or len(told.ids) + 1 < request.max_tokens:
            return told
        return replace(told, ids=[*told.ids, told.stop_id], stop_id=None, finish_reason="length")

    plant.replace(Engine, "infer", unseen)


@fault(expects={"F-QUAL-071": "moved"}, blast=_BLAST)
def first_id_never_stops(plant: Plant) -> None:
    """An answer has at least one id: the first one is never looked at."""
    from reference_engine import generate

    def late(run, model, request, *rest):
        stopping = frozenset(model.config.eos_token_ids)
        if request.ignore_eos or not stopping:
            yield from run(model, request, *rest)
            return
        bare = Reconfigured(model, eos_token_ids=())
        outcome = rest[0]
        for count, token in enumerate(run(bare, request, *rest)):
            if count and token in stopping:
                outcome.ids.pop()
                outcome.finish_reason, outcome.stop_id = "stop", token
                return
            yield token

    plant.replace(generate, "_run", late)


@fault(expects={"F-QUAL-070": "context_end"}, blast=_BLAST)
def prompts_cut_to_the_context(plant: Plant) -> None:
    """A prompt that is longer than the context loses its beginning, and nobody is told."""
    from reference_engine.engine import Engine

    def cut(infer, self, request, *rest):
        return infer(self, replace(request, prompt_ids=request.prompt_ids[-self.model.config.max_positions :]), *rest)

    plant.replace(Engine, "infer", cut)


@fault(expects={"F-QUAL-070": "context_end"}, blast=_BLAST)
def end_of_the_context_unchecked(plant: Plant) -> None:
    """A request that may go on past the last position breaks inside."""
    from reference_engine import generate

    def unchecked(run, model, request, *rest):
        if len(request.prompt_ids) + request.max_tokens > model.config.max_positions:
            raise IndexError("position out of range")
        return run(model, request, *rest)

    plant.replace(generate, "_run", unchecked)


@fault(expects={"F-QUAL-069": "ids"}, blast=_BLAST)
def last_of_equals_chosen(plant: Plant) -> None:
    """Of equal logits the last one wins, where the lowest id should."""
    from reference_engine import generate

    plant.replace(generate, "best_id", lambda best, logits, position: len(logits) - 1 - best(logits.flip(0), position))
