"""Which file for which source, and where the bundle goes: what a host's fields say, and what they cannot mean."""

import re
from pathlib import Path

import pytest

from tbd_core.checkpoint.asked import NONE, bundle_file, check_given, gather, known_sources, read_lines
from tbd_core.checkpoint.recipe import load_recipe, shipped
from tbd_core.checkpoint.sources import watch
from tbd_core.errors import InputError


MODELS = Path("/models")


def find(entry: str) -> Path:
    return MODELS / entry


def test_lines_name_sources_and_their_paths():
    lines = "sd = v1-5.ckpt\n\n  hallo=/data/a=b/net.pth  \n"
    assert read_lines(lines, MODELS) == {"sd": MODELS / "v1-5.ckpt", "hallo": Path("/data/a=b/net.pth")}
    assert read_lines("vae=~/vae.safetensors", MODELS) == {"vae": Path.home() / "vae.safetensors"}
    assert read_lines(" \n", MODELS) == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("sd=a.ckpt\nb.ckpt", r"paths line 2 is 'b.ckpt'; give NAME=PATH"),
        ("sd=", r"paths line 1 is 'sd='"),
        ("unet=a.ckpt", r"paths line 1 names source 'unet'; known are hallo, vae, text, wav2vec2, sd, motion"),
        ("sd=a.ckpt\nsd=b.ckpt", r"paths line 2 names source sd a second time; give each source once"),
        (r"sd=\\far\share\a.ckpt", r"\\\\far\\share\\a.ckpt is on another machine; copy it to this one"),
        ("sd=//far/share/a.ckpt", r"//far/share/a.ckpt is on another machine"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_by_its_number(lines, message):
    with pytest.raises(InputError, match=message) as caught:
        read_lines(lines, MODELS)
    assert "\n" not in str(caught.value)


def test_lines_go_before_menus_and_what_the_recipe_does_not_take_is_said():
    recipe = load_recipe("paper-init")
    chosen = {"sd": "checkpoints/sd.ckpt", "vae": NONE, "motion": "motion/mm.ckpt", "hallo": "hallo/net.pth"}
    given, notes = gather(recipe, chosen, "sd=/other/sd.ckpt\ntext=/clip", MODELS, find)
    assert given == {"sd": Path("/other/sd.ckpt"), "motion": MODELS / "motion/mm.ckpt"}
    assert notes == ("recipe paper-init takes no hallo, text: what is given for it is not used",)


def test_an_entry_that_is_not_used_is_not_even_looked_for():
    def gone(entry):
        raise InputError(f"{entry} is gone")

    assert gather(load_recipe("paper-init"), {"hallo": "hallo/net.pth"}, "", MODELS, gone)[0] == {}
    with pytest.raises(InputError, match="is gone"):
        gather(load_recipe("hallo-text"), {"hallo": "hallo/net.pth"}, "", MODELS, gone)


@pytest.mark.parametrize("name", shipped())
def test_what_a_recipe_lacks_is_named_with_what_to_give(name):
    recipe = load_recipe(name)
    with pytest.raises(InputError) as caught:
        check_given(recipe, {})
    said = str(caught.value)
    assert re.match(rf"recipe {name} lacks 4 of 4 sources; choose in the menus or give in paths: ", said)
    assert all(f"{key} ({wanted.about})" in said for key, wanted in recipe.sources.items()) and "--" not in said
    everything = {key: MODELS for key, wanted in recipe.sources.items() if not wanted.instead}
    check_given(recipe, everything)


def test_every_source_of_a_shipped_recipe_is_known():
    assert set(known_sources()) == {name for one in shipped() for name in load_recipe(one).sources}


def test_a_bundle_lies_below_its_folder_and_is_named_by_recipe_and_type_when_nobody_names_it(tmp_path):
    assert bundle_file(" ", "hallo-text", "fp16", tmp_path) == tmp_path / "tbd_hallo-text_fp16.safetensors"
    assert bundle_file("mine", "x", "fp16", tmp_path) == tmp_path / "mine.safetensors"
    assert bundle_file("a/b.SafeTensors", "x", "fp16", tmp_path) == tmp_path / "a" / "b.SafeTensors"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a/../../tbd2/x.safetensors"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    folder = tmp_path / "tbd"
    with pytest.raises(InputError, match=rf"name {name!r} leads to .*, out of {folder}; give a name below it"):
        bundle_file(name, "x", "fp16", folder)


@pytest.mark.parametrize("name", [".safetensors", "a/.safetensors", ".."])
def test_a_name_of_nothing_but_its_ending_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="has 0 letters before .safetensors; give one such as tbd_x"):
        bundle_file(name, "x", "fp16", tmp_path)


def test_a_changed_file_of_a_source_is_seen_and_one_that_is_gone_is_no_error(tmp_path):
    folder = tmp_path / "sd"
    (folder / "unet").mkdir(parents=True)
    file = folder / "unet" / "weights.safetensors"
    file.write_bytes(b"1")
    before = watch(folder)
    file.write_bytes(b"22")
    assert before != watch(folder) != []
    assert watch(file)[0][:2] == ("weights.safetensors", 2) and watch(tmp_path / "none") == []
