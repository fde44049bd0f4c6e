"""Convert Public Weights on small files of the public layouts: from ComfyUI's folders into models/tbd."""

import importlib.util
import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file


MENUS = ("sd", "vae", "text", "motion", "hallo", "wav2vec2")
FIELDS = dict(recipe="paper-init", paths="", dtype="fp32", fresh_seed=0, name="", replace=False)
CHOSEN = dict(sd="diffusers/sd15", motion="animatediff_models/mm.ckpt", wav2vec2="audio_encoders/wav2vec2-base")


@pytest.fixture(scope="module")
def config(small_config):
    """Widths that grow as SD 1.5's do."""
    unet = replace(small_config.unet, block_out_channels=(20, 28, 36, 36), reference_in=False, reference_out=0)
    plain = {name: value for name, value in small_config.vae.items() if name != "second_look_width"}
    vae = plain | {"block_out_channels": [8, 16, 24, 24], "layers_per_block": 2}
    return replace(small_config, unet=unet, vae=vae)


@pytest.fixture(scope="module")
def public(root, config, tmp_path_factory):
    """The public files at small width, by source."""
    spec = importlib.util.spec_from_file_location("public_files", root / "tests" / "core" / "public_files.py")
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    folder, parts = tmp_path_factory.mktemp("public"), written.sd(config)
    files = {
        "sd": written.diffusers_folder(folder / "sd15", parts),
        "vae": folder / "vae-ft-mse.safetensors",
        "motion": folder / "mm.ckpt",
        "wav2vec2": folder / "wav2vec2-base",
    }
    save_file(written.old_vae(parts), files["vae"])
    torch.save(written.motion(written.hallo(config, list(written.hallo_names(root)))), files["motion"])
    written.wav2vec2(config).save_pretrained(files["wav2vec2"])
    return files


@pytest.fixture(scope="module", autouse=True)
def built_once(pack):
    """The networks on the meta device, which are only read, are built once."""
    from tbd_pack.tbd_core.checkpoint import plan

    build, made = plan.networks_of, []

    def networks(config):
        if not made:
            made.append(build(config))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "networks_of", networks)
        yield


@pytest.fixture
def node(pack, config, monkeypatch):
    """The node, its recipes at small width."""
    from tbd_pack.nodes import converting
    from tbd_pack.tbd_core.config import ModelConfig

    load, small = converting.load_recipe, ModelConfig.from_dict(config.to_dict())
    monkeypatch.setattr(converting, "load_recipe", lambda name: replace(load(name), config=small))
    return converting.TBDConvert


@pytest.fixture
def models(folders, public, monkeypatch):
    """ComfyUI's model folders with these files in them; animatediff_models is registered by nobody."""
    import folder_paths

    models = folders / "models"
    for kind in ("checkpoints", "diffusers", "vae", "text_encoders", "diffusion_models", "audio_encoders"):
        (models / kind).mkdir(exist_ok=True)
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, kind, ([str(models / kind)], {".safetensors", ".ckpt"})
        )
    (models / "animatediff_models").mkdir()
    (models / "diffusers" / "sd15").symlink_to(public["sd"])
    (models / "vae" / "ft-mse.safetensors").symlink_to(public["vae"])
    (models / "animatediff_models" / "mm.ckpt").symlink_to(public["motion"])
    (models / "animatediff_models" / "notes.txt").write_text("not weights")
    (models / "audio_encoders" / "wav2vec2-base").symlink_to(public["wav2vec2"])
    return models


@pytest.fixture
def convert(node, models, run):
    """`convert(**fields)`: (name, report)."""
    return lambda **changed: run(node, **(dict.fromkeys(MENUS, "none") | CHOSEN | FIELDS | changed)).args


def listing(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_menus_list_what_lies_in_comfyuis_folders(node, models):
    menus = {one.id: one.options for one in node.GET_SCHEMA().inputs if one.id in MENUS}
    assert menus == {
        "sd": ["none", "diffusers/sd15"],
        "vae": ["none", "vae/ft-mse.safetensors"],
        "text": ["none", "diffusers/sd15"],
        "motion": ["none", "animatediff_models/mm.ckpt"],
        "hallo": ["none"],
        "wav2vec2": ["none", "audio_encoders/wav2vec2-base"],
    }


def test_the_bundle_is_in_the_loaders_list_and_says_what_it_is_but_no_path_of_this_machine(
    convert, models, pack, folders, config
):
    from tbd_pack.nodes import comfy_bridge
    from tbd_pack.tbd_core.checkpoint import store

    name, report = convert()
    assert name == "tbd_paper-init_fp32.safetensors" and name in comfy_bridge.bundle_names()
    assert "tensors as fp32, " in report and "GB, written\n" in report and "taken: denoising_unet 448" in report
    assert "warning: source vae was not given; it is taken from sd" in report
    dead = [line for line in report.splitlines() if line.startswith("dead in motion: ")]
    assert len(dead) == 140 and all(".motion_modules." in line for line in dead)
    path = comfy_bridge.bundle_path(name)
    assert store.read_drawable(path).to_dict() == config.to_dict()
    told = store.read_about(path)["converted"]
    assert told["recipe"] == "paper-init" and told["sources"]["motion"]["taken"] == 448 and len(told["trace"]) == 64
    assert str(folders) not in json.dumps(told)


def test_it_is_not_made_again_of_the_same_and_never_written_over(convert, models, node):
    name, _ = convert(name="mine")
    file = models / "tbd" / name
    before = file.stat()
    assert "there already, made of the same files; not written again" in convert(name="mine", replace=True)[1]
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(
        ValueError, match=r"mine.safetensors is there already, and of other files or settings; give another"
    ):
        convert(name="mine", fresh_seed=1)
    assert file.stat().st_mtime_ns == before.st_mtime_ns and listing(models / "tbd") == [name]
    assert "written in place of the file that was there" in convert(name="mine", fresh_seed=1, replace=True)[1]
    assert file.stat().st_mtime_ns != before.st_mtime_ns and listing(models / "tbd") == [name]


def test_a_file_that_is_no_bundle_is_not_written_over_either(convert, models):
    (models / "tbd" / "mine.safetensors").write_text("my notes")
    with pytest.raises(ValueError, match="is there already"):
        convert(name="mine")
    assert (models / "tbd" / "mine.safetensors").read_text() == "my notes"


def test_a_path_typed_goes_before_the_menu_and_what_is_not_used_is_said(convert, public, models):
    gone = {"sd": "checkpoints/gone.ckpt", "hallo": "hallo/net.pth"}
    report = convert(**gone, paths=f"sd={public['sd']}\nvae=vae/ft-mse.safetensors", dtype="bf16")[1]
    assert "warning: recipe paper-init takes no hallo: what is given for it is not used" in report
    assert f"sd: {public['sd']}, " in report and "sd-vae (" in report and "was not given" not in report


def test_a_cancel_leaves_nothing_behind_and_progress_counts_tensors(convert, models):
    import comfy.model_management as mm
    import comfy.utils

    seen = []

    def hook(value, total, preview, node_id=None):
        seen.append((value, total))
        if value > total // 2:
            mm.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    with pytest.raises(mm.InterruptProcessingException):
        convert()
    assert 20 < len(seen) <= 101 and seen == sorted(seen) and listing(models / "tbd") == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(sd="none"), r"recipe paper-init lacks 2 of 4 sources; choose in the menus or give in paths: sd \(SD 1.5"),
        (
            dict(sd="checkpoints/gone.ckpt"),
            r"checkpoints/gone.ckpt is not in ComfyUI's model folders; put it there, or",
        ),
        (dict(sd="checkpoints/../../secret"), "is not in ComfyUI's model folders"),
        (dict(recipe="soup"), "unknown recipe 'soup'; choose hallo-compat, hallo-text, paper-init"),
        (dict(dtype="fp8"), "unknown dtype 'fp8'; choose fp16, bf16, fp32"),
        (dict(fresh_seed=-1), "seed is -1; give a whole number from 0"),
        (dict(name="../../x"), r"name '../../x' leads to .*, out of .*tbd; give a name below it"),
        (dict(paths="sd"), "paths line 1 is 'sd'; give NAME=PATH"),
        (dict(paths=r"sd=\\far\share\sd.ckpt"), "is on another machine; copy it to this one"),
        (dict(paths="sd=none.ckpt"), r"none.ckpt does not exist; give a .safetensors, .ckpt"),
    ],
)
def test_fields_that_cannot_be_used_are_refused_in_one_line_and_nothing_is_written(convert, models, changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        convert(**changed)
    assert type(caught.value).__name__ == "InputError" and "\n" not in str(caught.value)
    assert listing(models / "tbd") == []


class Boom:
    """What a hostile pickle would run."""

    def __reduce__(self):
        return (open, ("ran", "w"))


SECRET = "password=hunter2"


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.safetensors", "a.ckpt", "a.pth", "config.json/"])
def test_a_file_that_is_no_weights_is_refused_and_nothing_of_it_is_shown(convert, folders, name, caplog):
    """A workflow of somebody else's may name any file of this machine."""
    path = folders / name
    if name.endswith("/"):
        path = folders / "folder"
        path.mkdir()
        (path / "config.json").write_text(SECRET)
    else:
        path.write_text(SECRET)
    with pytest.raises(ValueError) as caught:
        convert(paths=f"sd={path}")
    assert type(caught.value).__name__ == "InputError"
    assert "hunter2" not in f"{caught.value} {caplog.text}"


def test_a_pickle_with_code_is_refused_and_the_code_not_run(convert, folders, monkeypatch):
    monkeypatch.chdir(folders)
    with (folders / "bad.ckpt").open("wb") as file:
        pickle.dump({"weight": Boom()}, file, protocol=2)
    with pytest.raises(ValueError, match=r"bad.ckpt .*"):
        convert(paths=f"sd={folders / 'bad.ckpt'}")
    torch.save({"weight": Boom()}, folders / "bad.pth")
    with pytest.raises(ValueError, match=r"bad.pth holds code or objects \(.*open\), which are never run"):
        convert(paths=f"sd={folders / 'bad.pth'}")
    assert not (folders / "ran").exists()


def test_only_what_the_recipe_takes_must_be_there_when_a_graph_is_checked(node, models):
    given = dict.fromkeys(MENUS, "none") | CHOSEN
    assert node.validate_inputs(recipe="paper-init", **given) is True
    assert node.validate_inputs(recipe="paper-init", **(given | {"hallo": "hallo/net.pth"})) is True
    gone = node.validate_inputs(recipe="paper-init", **(given | {"sd": "checkpoints/gone.ckpt"}))
    assert gone == "checkpoints/gone.ckpt is not in ComfyUI's model folders; put it there, or choose another or none"
    assert node.validate_inputs(recipe=None, **given) is True  # linked, not known yet
    assert node.validate_inputs(recipe="paper-init", **dict.fromkeys(MENUS)) is True
    assert "unknown recipe 'soup'" in node.validate_inputs(recipe="soup", **given)


def test_it_runs_again_when_a_source_or_the_bundle_has_changed_or_gone(node, models):
    fields = dict.fromkeys(MENUS, "none") | CHOSEN | FIELDS
    before = node.fingerprint_inputs(**fields)
    bundle = models / "tbd" / "tbd_paper-init_fp32.safetensors"
    bundle.write_bytes(b"made")
    done = node.fingerprint_inputs(**fields)
    assert before != done == node.fingerprint_inputs(**fields)
    bundle.unlink()
    assert node.fingerprint_inputs(**fields) == before
    (models / "diffusers" / "sd15").unlink()
    (models / "diffusers" / "sd15").mkdir()
    assert node.fingerprint_inputs(**fields) != before
    assert "unknown recipe" in node.fingerprint_inputs(**(fields | {"recipe": None}))
