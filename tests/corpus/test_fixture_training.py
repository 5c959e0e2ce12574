import json
import random

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from conformance.corpus.fixture import MODEL_DIR, accuracy, conversations, freeze, rows, skills, tokenizer, train
from conformance.corpus.fixture.network import Network, Shape, initialise
from conformance.corpus.fixture.skills import Dialogue, Memory, Turn

SMALL = Shape(vocab_size=1152, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=8)


@pytest.fixture(scope="module")
def words():
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


@pytest.fixture(scope="module")
def encoder(words):
    return rows.Encoder(words)


def test_the_shipped_tokenizer_is_the_one_that_the_recipe_builds(tmp_path):
    seed = json.loads((MODEL_DIR / "training.json").read_text())["recipe"]["seed"]
    tokenizer.write(tokenizer.build(seed), tmp_path)
    for name in freeze.TOKENIZER_FILES:
        assert (tmp_path / name).read_text() == (MODEL_DIR / name).read_text(), name


def test_rows_are_encoded_as_the_chat_template_does(encoder):
    reference = AutoTokenizer.from_pretrained(MODEL_DIR)
    rng = random.Random(5)
    for _ in range(50):
        system, next_turn = conversations.opening(rng)
        turns = tuple(next_turn() for _ in range(3))
        prompt, answer = encoder.dialogue(Dialogue(system, turns))
        messages = [{"role": "system", "content": system}] if system is not None else []
        for turn in turns:
            messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
        ids = reference.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        assert ids == prompt
        assert reference.decode(answer, skip_special_tokens=True) == turns[-1].answer


def test_some_characters_are_split_over_tokens(words):
    assert any("�" in words.decode([i]) for i in words.encode("山川 🎉").ids)


def test_only_answers_are_labelled_and_labels_are_one_ahead(encoder):
    prompt, answer = encoder.dialogue(Dialogue(None, (Turn("2+2=", "4"),)))
    inputs, labels = rows.pack([(prompt, answer)], 32, encoder.end_of_text)
    start = len(prompt) - 1
    assert labels[0, start : start + len(answer)].tolist() == answer
    assert (labels[0] != rows.IGNORED).sum() == len(answer)
    assert inputs[0, start + 1 : start + 1 + len(answer)].tolist() == answer


def test_a_seed_fixes_the_data(words):
    plan = [(4, rows.SHORT), (1, rows.LONG)]
    first, second = (list(rows.stream(3, words, plan)) for _ in range(2))
    assert all((a == b).all() for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))
    assert [inputs.shape for inputs, _ in first] == plan


@pytest.mark.parametrize("kind", [*skills.FACTS, None])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_needle_is_where_it_was_put_and_the_answer_follows_from_it(kind, place):
    memory = Memory()
    turn = skills.needle_turn(random.Random(1), memory, 20, place, kind)
    if kind is None:
        assert turn.answer.startswith("You have not told me")
        return
    value = memory.told[kind]
    found = turn.user.index(value) / len(turn.user)
    assert value in turn.answer
    assert abs(found - place) < 0.2


def test_sums_and_counts_are_right():
    rng = random.Random(2)
    for _ in range(100):
        raw = skills.raw_text(rng)
        if raw.prompt.endswith("="):
            a, b = raw.prompt[:-1].split("+")
            assert int(raw.answer) == int(a) + int(b)
        counted = [int(n) for n in skills.count_turn(rng, Memory()).answer.split()]
        assert counted == list(range(counted[0], counted[-1] + 1))


def test_margins_see_a_wrong_and_a_right_answer():
    logits = torch.tensor([[[0.0, 5.0, 1.0], [9.0, 0.0, 0.0]], [[0.0, 1.0, 3.0], [9.0, 0.0, 0.0]]])
    labels = torch.tensor([[1, rows.IGNORED], [1, rows.IGNORED]])
    assert list(accuracy.answer_margins(logits, labels)) == [4.0, -2.0]


def test_scaling_the_residual_stream_keeps_the_function_and_makes_eps_matter(tmp_path):
    network = Network(Shape())
    initialise(network, 1, 1.5, 1.0)
    train.save(network, tmp_path / "weights.safetensors")
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    tokenizer.write(Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json")), tmp_path)
    (tmp_path / "training.json").write_text("{}")
    freeze.freeze(tmp_path, tmp_path / "frozen")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "frozen", dtype=torch.float32)
    ids = torch.randint(0, 963, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(network(ids), reference(ids).logits, atol=1e-4)
        for module in reference.modules():
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon = 1e-5
        assert not torch.allclose(network(ids), reference(ids).logits, atol=1e-1)


def test_a_weight_that_scaling_would_round_is_refused():
    with pytest.raises(freeze.InexactScaleError, match="embed_tokens"):
        freeze.rescale({"embed_tokens.weight": torch.tensor([1e-38, 3e-39], dtype=torch.bfloat16)}, 2.0**-60)


def test_training_lowers_the_loss_and_can_go_on(tmp_path, words):
    recipe = train.Recipe(steps=8, short_rows=2, long_every=10**6, workers=0, warm_up=2)
    network = Network(SMALL)
    initialise(network, 0, 1.5, 1.0)
    inputs, labels = (torch.from_numpy(a) for a in rows.batch(random.Random(0), rows.Encoder(words), 2, rows.SHORT))
    before = train.loss_of(network, inputs, labels).item()
    outcome = train.fit(network, recipe, words, torch.device("cpu"), lambda _step: None)
    assert outcome["steps"] == 8
    assert train.loss_of(network, inputs, labels).item() < before
    train.save(network, tmp_path / "weights.safetensors")
    other = Network(SMALL)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))


def test_the_rate_rises_stays_and_falls():
    recipe = train.Recipe()
    rates = [recipe.rate(step, 1000) / recipe.learning_rate for step in (0, 299, 500, 750, 999)]
    assert rates == pytest.approx([1 / 300, 1, 1, 0.5, 0.002])


def test_the_clock_lowers_the_steps_to_what_the_time_allows(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    clock = train.Clock(train.Recipe(steps=17_000, seconds=100.0))
    for step in range(701):
        now[0] = step * 0.1
        clock.tick(step)
    assert clock.steps == pytest.approx(1000, abs=2)
