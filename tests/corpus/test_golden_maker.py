import sys
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from conformance.corpus.checkpoint import fingerprint
from conformance.corpus.golden_cases import GoldenCaseList, GoldenPrompt, load_cases
from conformance.corpus.golden_comparison import compare_goldens
from conformance.corpus.golden_maker import (
    GoldensChanged,
    PromptTooLong,
    TokenizerMissing,
    TransformersMissing,
    check_goldens,
    make_goldens,
)
from conformance.corpus.golden_noise import rounding_noise
from conformance.corpus.goldens import GoldensForAnotherModel, golden_paths, load_goldens
from conformance.corpus.models import RANDOM
from conformance.corpus.random_model import write_random_model

pytest.importorskip("transformers")


def some(*names, forced=False):
    cases = load_cases()
    chosen = tuple(case for case in cases.case if case.name in names)
    return GoldenCaseList(case=chosen, forced=cases.forced[1:] if forced else ())


def test_shipped_goldens_belong_to_the_shipped_model():
    for dtype in ("F32", "F16", "BF16"):
        load_goldens(RANDOM, dtype).require(fingerprint(RANDOM).sha256)


@pytest.mark.slow
def test_shipped_goldens_repeat():
    check_goldens(RANDOM, RANDOM)


def test_same_run_gives_the_same_bytes(tmp_path):
    cases = some("hello", "turns_name", "one_token_hello", forced=True)
    for name in ("a", "b"):
        make_goldens(RANDOM, tmp_path / name, cases)
    for first, second in zip(golden_paths(tmp_path / "a", "F32"), golden_paths(tmp_path / "b", "F32"), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_cached_decoding_equals_a_full_forward_pass(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    goldens = make_goldens(RANDOM, tmp_path, some("hello"))
    case = goldens.case("hello")
    model = transformers.AutoModelForCausalLM.from_pretrained(RANDOM, dtype=torch.float32, attn_implementation="eager")
    sequence = torch.tensor([[*case.prompt_ids, *case.ids]])
    with torch.inference_mode():
        logits = model(sequence, use_cache=False).logits[0, len(case.prompt_ids) - 1 :].numpy()
    assert np.abs(logits[: len(case.decisions)] - goldens.logits(case)[1]).max() < 1e-4


def test_a_generation_ends_at_each_of_the_two_stop_ids():
    stops = {case.stop_id for case in load_goldens(RANDOM).run.cases}
    assert {413, 415} <= stops


def test_the_long_prompts_are_long():
    goldens = load_goldens(RANDOM)
    assert len(goldens.case("long_exactly_1000").prompt_ids) == 1000
    assert 1000 <= len(goldens.case("long_recall_first").prompt_ids) <= 1040
    assert len(goldens.case("one_token_hello").prompt_ids) == 1


def test_prompt_beyond_the_context_is_refused(tmp_path):
    case = GoldenPrompt(name="long", rows=(), max_tokens=1, prompt_ids=(1,) * 5000)
    with pytest.raises(PromptTooLong, match="4096"):
        make_goldens(RANDOM, tmp_path, GoldenCaseList(case=(case,)))


def test_other_weights_do_not_pass_the_check(tmp_path):
    cases = some("hello", "sum_bare")
    make_goldens(RANDOM, tmp_path / "stored", cases)
    write_random_model(tmp_path / "other", seed=1)
    with pytest.raises(GoldensForAnotherModel):
        check_goldens(tmp_path / "other", tmp_path / "stored", cases)


def test_case_that_is_missing_is_told(tmp_path):
    make_goldens(RANDOM, tmp_path, some("hello", "sum_bare"))
    with pytest.raises(GoldensChanged, match="sum_bare: only stored"):
        check_goldens(RANDOM, tmp_path, some("hello"))


def test_changed_logits_and_ids_are_told():
    stored = load_goldens(RANDOM)
    arrays = dict(stored.arrays)
    arrays["hello/logits"] = arrays["hello/logits"] + np.float32(2e-4)
    rebuilt = msgspec.structs.replace(stored.run)
    assert compare_goldens(stored, type(stored)(rebuilt, arrays)) == ["hello: logits differ by 0.0002"]
    nan = arrays | {"hello/logits": np.full_like(arrays["hello/logits"], np.nan)}
    assert "hello: logits differ by nan" in compare_goldens(stored, type(stored)(rebuilt, nan))
    case = msgspec.structs.replace(stored.run.cases[0], text="other")
    run = msgspec.structs.replace(stored.run, cases=(case, *stored.run.cases[1:]))
    assert compare_goldens(stored, type(stored)(run, stored.arrays)) == [f"{case.name}: prompt, ids or text differ"]


def test_missing_transformers_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TransformersMissing, match=r"falsify-inference\[golden\]"):
        make_goldens(RANDOM, tmp_path, some("hello"))


def test_checkpoint_without_tokenizer_takes_ids_and_refuses_words(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (model / name).write_bytes((RANDOM / name).read_bytes())
    case = GoldenPrompt(name="ids", rows=(), max_tokens=4, prompt_ids=(1, 2, 3))
    goldens = make_goldens(model, tmp_path / "out", GoldenCaseList(case=(case,), forced=load_cases().forced[1:]))
    assert len(goldens.case("ids").ids) == 4
    with pytest.raises(TokenizerMissing, match="hello"):
        make_goldens(model, tmp_path / "out", some("hello"))


def test_another_rounding_noise_is_a_difference():
    stored = load_goldens(RANDOM)
    for noise, differs in ((stored.run.noise * 1.4, False), (stored.run.noise * 2, True), (stored.run.noise / 2, True)):
        rebuilt = replace(stored, run=msgspec.structs.replace(stored.run, noise=noise))
        assert bool(compare_goldens(stored, rebuilt)) is differs


def test_noise_grows_with_an_error_in_a_stored_logit():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    stored = load_goldens(RANDOM)
    model = transformers.AutoModelForCausalLM.from_pretrained(RANDOM, dtype=torch.float64, attn_implementation="eager")
    assert rounding_noise(model, stored) == pytest.approx(stored.run.noise, rel=0.5)
    name = next(iter(stored.by_name))
    off = stored.arrays | {f"{name}/top_logits": stored.arrays[f"{name}/top_logits"] + np.float32(0.01)}
    assert rounding_noise(model, replace(stored, arrays=off)) > 0.009
