"""Manifests are read strictly, and what is filled in is text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.manifest import (
    BrokenManifest,
    EngineNotInstalled,
    UnknownEngine,
    known_engines,
    load_manifest,
    require_installed,
)
from conformance.trial.runner import Options, prepare

MINIMAL = '[engine]\nname = "x"\n'


def load(tmp_path, text):
    path = tmp_path / "engine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_manifest(str(path))


@pytest.mark.parametrize("name", known_engines())
def test_every_shipped_manifest_can_be_read(name):
    assert load_manifest(name).manifest.engine.name


def test_a_manifest_knows_where_it_lies_and_its_hash(tmp_path):
    loaded = load(tmp_path, MINIMAL)

    assert loaded.path == tmp_path / "engine.toml"
    assert len(loaded.sha256) == 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[engine]\n",
        "name = ",
        b"\xff",
        MINIMAL + "speed = 1\n",
        MINIMAL + "[drivr]\n",
        MINIMAL + '[driver]\ncommand = "x"\n',
        MINIMAL + "[driver]\ncommand = []\n",
        MINIMAL + '[driver]\ncommand = ["x"]\nstartup_timeout_s = 0\n',
        MINIMAL + '[driver]\ncommand = ["x"]\nstartup_timeout_s = nan\n',
        MINIMAL + '[build]\ncommand = ["x"]\ntimeout_s = 1e9\n',
        MINIMAL + 'precision = "f64"\n',
    ],
)
def test_what_is_misspelt_or_out_of_range_is_broken_and_names_the_file(tmp_path, text):
    with pytest.raises(BrokenManifest, match=r"engine\.toml: "):
        load(tmp_path, text)


@pytest.mark.parametrize("name", ["no-such", "no/such.toml", ".", "/", "x.toml"])
def test_an_engine_that_is_not_there_says_which_there_are(name):
    with pytest.raises(UnknownEngine, match="reference"):
        load_manifest(name)


def test_placeholders_are_filled_and_unknown_ones_stay(tmp_path):
    filled = load(tmp_path, MINIMAL).filled(["{manifest_dir}/x", "{prompt}", "{other}", "{}"], prompt="p", python="py")

    assert filled == [f"{tmp_path}/x", "p", "{other}", "{}"]


@given(prompt=st.text(), tokens=st.integers())
def test_what_is_filled_in_is_never_filled_again(tmp_path_factory, prompt, tokens):
    loaded = load(tmp_path_factory.mktemp("m"), MINIMAL)

    filled = loaded.filled(["{prompt}", "{max_tokens}"], prompt="{max_tokens}{python}" + prompt, max_tokens=str(tokens))

    assert filled == ["{max_tokens}{python}" + prompt, str(tokens)]


def test_an_engine_that_is_not_installed_is_named_with_what_to_install(tmp_path):
    loaded = load(tmp_path, MINIMAL + 'requires = ["json", "no_such_module.inner"]\nextra = "mlx"\n')

    with pytest.raises(EngineNotInstalled) as missing:
        require_installed(loaded)

    assert "no module 'no_such_module.inner'" in str(missing.value)
    assert "falsify-inference[mlx]" in str(missing.value)


@pytest.mark.parametrize("key", ["F-NO-001", "colour"])
def test_a_left_out_row_that_does_not_exist_is_a_broken_manifest(tmp_path, key):
    path = tmp_path / "engine.toml"
    path.write_text(MINIMAL + f'[driver]\ncommand = ["x"]\n[untested]\n{key} = "why"\n')

    with pytest.raises(BrokenManifest, match=f"names '{key}', neither a row nor a section"):
        prepare(Options(engine=str(path), model="random", out=tmp_path))


def test_a_manifest_leaves_rows_and_sections_out_with_its_reason(tmp_path):
    path = tmp_path / "engine.toml"
    path.write_text(MINIMAL + '[driver]\ncommand = ["x"]\n[untested]\nload = "no loader"\nF-LOAD-056 = "own"\n')
    ready = prepare(Options(engine=str(path), model="random", out=tmp_path, sections=("load", "parse")))

    assert {ready.absent[row] for row in ready.absent if row.startswith("F-LOAD")} == {
        "the manifest says: no loader",
        "the manifest says: own",
    }
    assert ready.absent["F-LOAD-056"] == "the manifest says: own"
    assert {row.rsplit("-", 1)[0] for row in ready.plan.rows} == {"F-PARSE"}
    assert ready.absent["F-MEM-029"] == "not selected"
