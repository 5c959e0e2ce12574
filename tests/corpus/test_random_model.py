import hashlib

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from conformance.corpus.checkpoint import read_json, side_files, weight_files
from conformance.corpus.models import RANDOM
from conformance.corpus.random_model import write_random_model


def test_shipped_checkpoint_is_what_the_script_writes(tmp_path):
    write_random_model(tmp_path)
    for path in (*weight_files(RANDOM), *side_files(RANDOM)):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_shipped_weights_never_change():
    content = (RANDOM / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "63d7eb8b3ba67c6b33ff9545ae387ba1cf74a8f2c211637ceb5e7e98370a591b"


def test_another_seed_gives_other_weights(tmp_path):
    write_random_model(tmp_path, seed=1)
    assert (tmp_path / "model.safetensors").read_bytes() != (RANDOM / "model.safetensors").read_bytes()


def test_vocabulary_is_padded_beyond_the_tokenizer_with_rows_that_never_win():
    rows = load_file(RANDOM / "model.safetensors")["model.embed_tokens.weight"]
    used = Tokenizer.from_file(str(RANDOM / "tokenizer.json")).get_vocab_size()
    assert used < len(rows) == read_json(RANDOM / "config.json")["vocab_size"]
    assert not rows[used:].any()
    assert np.abs(rows[:used]).sum(axis=1).min() > 0


def test_every_byte_survives_the_tokenizer():
    tokenizer = Tokenizer.from_file(str(RANDOM / "tokenizer.json"))
    for text in ("Hello, 123 world!\n\n  two", "café 日本語 🎉 Ω", "\t\x00\x7f"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode("2024", add_special_tokens=False).ids) == 4


def test_two_ends_are_named_and_special():
    tokenizer = Tokenizer.from_file(str(RANDOM / "tokenizer.json"))
    ends = read_json(RANDOM / "generation_config.json")["eos_token_id"]
    assert [tokenizer.id_to_token(index) for index in ends] == ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.decode(ends) == ""
