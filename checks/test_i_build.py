"""I. Existence & Build: a clean export is built, installed elsewhere, and the roles are used from there."""

from __future__ import annotations

from pathlib import Path

from checks.support.building import built_engine, installed, observe_compiled, required, resolved_roles, workshop
from checks.support.documentation import documented_items, engine_packages, public_items, require_tool, warnings_in
from checks.support.planting import plant_broken_import, plant_broken_test, plant_lint_violation
from checks.support.quality import first_golden, loaded_model
from checks.support.tensors import bits_of, write_safetensors
from conformance.probes.nvml import gpus
from conformance.protocol.messages import Empty, Generate, LoadFile, Logits
from conformance.sources.unsafe import scan_python, scan_rust
from conformance.trial.stand import NotTried, Stand


def test_f_build_001(stand: Stand) -> None:
    if stand.manifest.manifest.engine.language != "python":
        observe_compiled(stand)
        raise NotTried("it is built; what this language builds is not installed and started by the harness")
    made = installed(stand)
    if not made.ok:
        stand.attach_text("build.log", f"{made.build.output}\n{made.install.output}")
        stand.failed("builds", "build failed", (made.install if made.build.ok else made.build).told)
        return
    stand.equal("builds", expected=True, observed=made.ok, note=Path(made.artefact).name)
    origin = {
        role: Path(found.get("file", "")).is_relative_to(made.site) for role, found in resolved_roles(stand).items()
    }
    stand.equal("imported_from_artefact", expected=dict.fromkeys(origin, True), observed=origin)
    engine = built_engine(stand)
    stand.equal("starts", expected=stand.manifest.manifest.engine.name, observed=engine.info.name)
    if stand.needs_gpu("has_cuda"):
        listed = engine.call("device.list", Empty()).devices
        stand.equal("has_cuda", expected=len(gpus()), observed=len(listed))


def test_f_build_002(stand: Stand) -> None:
    roles = resolved_roles(stand)
    stand.equal("resolves", expected="class", observed=roles["SafeTensorsCudaLoader"].get("kind", "nothing"))
    payload = bits_of("F32", 256, stand.random)
    path = write_safetensors(stand.directory / "one.safetensors", {"weight": ("F32", [256], payload)})
    engine = built_engine(stand)
    with stand.opened_device_of(engine) as device:
        loaded = engine.call("storage.load_file", LoadFile(device.handle, str(path)))
        stand.equal("loads", expected=["weight"], observed=sorted(loaded.tensors))
        stand.equal("returns_storage", expected=roles["CudaStorage"].get("name"), observed=loaded.type_name)


def test_f_build_003(stand: Stand) -> None:
    found = resolved_roles(stand)["SafeTensorsCudaModel"]
    stand.equal("resolves", expected="class", observed=found.get("kind", "nothing"))
    engine = built_engine(stand)
    with loaded_model(stand, engine) as model:
        stand.equal("returned_by_loading", expected=found.get("name"), observed=model.type_name)


def test_f_build_004(stand: Stand) -> None:
    found = resolved_roles(stand)["CudaStorage"]
    stand.equal("resolves", expected="class", observed=found.get("kind", "nothing"))
    engine = built_engine(stand)
    with loaded_model(stand, engine) as model:
        stand.equal("holds_the_weights", expected=found.get("name"), observed=model.storage_type_name)


def test_f_build_005(stand: Stand) -> None:
    found = resolved_roles(stand)["from_safetensors"]
    stand.equal("takes_path_and_device", expected=True, observed=len(found.get("parameters", [])) >= 2)
    golden = first_golden(stand)
    engine = built_engine(stand)
    with loaded_model(stand, engine) as model:
        answer = engine.call("model.logits", Logits(model.handle, list(golden.prompt_ids), last=1))
        best = stand.read_tensor(answer)[-1].argmax()
        stand.equal("does_the_job", expected=golden.ids[0], observed=int(best))


def test_f_build_006(stand: Stand) -> None:
    found = resolved_roles(stand)["generate"]
    stand.equal("takes_prompt_and_length", expected=True, observed=len(found.get("parameters", [])) >= 2)
    golden = first_golden(stand)
    engine = built_engine(stand)
    with loaded_model(stand, engine) as model:
        request = Generate(model.handle, golden.max_tokens, prompt_ids=list(golden.prompt_ids))
        stand.equal("does_the_job", expected=list(golden.ids), observed=engine.call("generate", request).ids)


def test_f_build_007(stand: Stand) -> None:
    table = required(stand, "tests")
    shop = workshop(stand)
    collected = shop.run(table, shop.export("tests"))
    stand.attach_text("tests.log", collected.output)
    stand.equal("compile", expected=0, observed=collected.status, note=collected.told)
    broken = shop.export("tests-broken")
    plant_broken_test(stand, broken)
    stand.equal("control_fails", expected=False, observed=shop.run(table, broken).ok)


def test_f_build_008(stand: Stand) -> None:
    shop = workshop(stand)
    if shop.source is None:
        raise NotTried("the manifest has no [source] table")
    scan = {"python": (".py", scan_python), "rust": (".rs", scan_rust)}.get(shop.source.language)
    if scan is None:
        raise NotTried(f"no scanner for {shop.source.language}")
    suffix, scanner = scan
    files = [file for file in shop.files() if file.suffix == suffix]
    found = {file: scanner(file.read_text(encoding="utf-8")) for file in files}
    bare = [
        f"{file.relative_to(shop.root)}:{item.line} {item.what}"
        for file, items in found.items()
        for item in items
        if not item.explained
    ]
    stand.measured("files_scanned", len(files), "files")
    stand.equal("unexplained", expected=[], observed=bare, note=f"{sum(map(len, found.values()))} unsafe constructs")


def test_f_build_009(stand: Stand) -> None:
    table = required(stand, "lint")
    shop = workshop(stand)
    linted = shop.run(table, shop.export("lint"))
    stand.attach_text("lint.log", linted.output)
    stand.equal("clean", expected=0, observed=linted.status, note=linted.told)
    broken = shop.export("lint-broken")
    plant_lint_violation(stand, broken)
    stand.equal("control_fails", expected=False, observed=shop.run(table, broken).ok)


def test_f_build_010(stand: Stand) -> None:
    table = required(stand, "docs")
    require_tool(table)
    shop, site = workshop(stand), stand.directory / "site"
    copy = shop.export("docs")
    built = shop.run(table, copy, out=str(site))
    stand.attach_text("docs.log", built.output)
    stand.equal("builds", expected=0, observed=built.status, note=built.told)
    stand.equal("warnings", expected=[], observed=warnings_in(built.output))
    packages = engine_packages(stand)
    wanted = public_items(copy, packages)
    stand.measured("public_items", len(wanted), "items")
    absent = sorted(set(wanted) - documented_items(site))
    stand.equal("absent_from_pages", expected=[], observed=absent)
    broken = shop.export("docs-broken")
    plant_broken_import(stand, broken, packages)
    spoilt = shop.run(table, broken, out=str(stand.directory / "site-broken"))
    stand.equal("control_fails", expected=False, observed=spoilt.ok and not warnings_in(spoilt.output))
