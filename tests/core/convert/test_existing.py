"""`convert` where a file is already."""

import pytest

from tbd_core.checkpoint import convert as module
from tbd_core.checkpoint.convert import convert
from tbd_core.errors import InputError


def test_a_file_of_the_same_is_kept_or_renewed_as_asked_and_another_is_never_lost_unasked(world, tmp_path):
    output, recipe, given = tmp_path / "x.safetensors", world.recipe("paper-init"), world.given("paper-init")
    made = {key: convert(recipe, given, output, "fp32", seed, existing=key).outcome
            for key, seed in (("keep", 0), ("renew", 0), ("replace", 0))}  # fmt: skip
    assert made == {"keep": "written", "renew": "kept", "replace": "replaced"}
    before = output.read_bytes()
    with pytest.raises(
        InputError, match="x.safetensors is there already, and of other files or settings; give another"
    ):
        convert(recipe, given, output, "fp32", 1, existing="keep")
    assert output.read_bytes() == before
    assert convert(recipe, given, output, "fp32", 1, dry_run=True, existing="keep").outcome == "planned"
    assert convert(recipe, given, output, "fp32", 1, existing="renew").outcome == "replaced"
    assert output.read_bytes() != before
    output.write_bytes(b"another's")
    assert module.made_of(output) is None and list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_a_source_is_never_written_over_by_any_of_its_names(world, tmp_path, link, dry_run):
    source, output = tmp_path / "vae.safetensors", tmp_path / "vae.safetensors"
    source.write_bytes(world.files["vae"].read_bytes())
    if link:
        output = tmp_path / "out" / "x.safetensors"
        output.parent.mkdir()
        getattr(output, link)(source)
    given = world.given("paper-init", vae=source)
    with pytest.raises(InputError, match=r"output \S+ is a file of source vae \(\S+vae\.safetensors\); choose another"):
        convert(world.recipe("paper-init"), given, output, dry_run=dry_run, existing="replace")
    assert source.read_bytes() == world.files["vae"].read_bytes()


def test_nor_is_a_file_of_a_source_s_folder(world, tmp_path):
    folder = tmp_path / "vae"
    world.parts["vae"].save_pretrained(folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    with pytest.raises(InputError, match=rf"is a file of source vae \({file}\); choose another output"):
        convert(world.recipe("paper-init"), world.given("paper-init", vae=folder), file, existing="renew")


def test_what_was_converted_is_told_also_of_a_bundle_of_an_older_version():
    from tbd_core.checkpoint.report import origin

    old = {"recipe": "hallo-text", "dtype": "fp16", "sources": {"sd": {"is": None, "layouts": {}, "taken": 3}}}
    assert origin(old) == ["converted by recipe hallo-text as fp16", "  sd: of no known name; keys: 3 taken"]
    new = old | {"missing": 2, "fresh": {"audioproj, random": 8}}
    assert origin(new)[2:] == [
        "  started fresh: audioproj, random: 8 keys",
        "  missing from the sources, started fresh: 2 keys",
    ]


def test_every_key_has_a_line_up_to_a_bound():
    from tbd_core.checkpoint.report import MOST, every_key

    many = [f"k{i}" for i in range(MOST + 2)]
    sources = {"motion": {"dead": ["a", "b"], "unexpected": ["c"]}, "sd": {"dead": [], "unexpected": many}}
    lines = every_key({"sources": sources, "missing": ["m"]}).splitlines()
    assert lines[:4] == ["dead in motion: a", "dead in motion: b", "unexpected in motion: c", "unexpected in sd: k0"]
    assert lines[-2:] == [
        "unexpected in sd: 2 more; `tbd convert --dry-run --json` tells all 1002", "missing, starts fresh: m",
    ]  # fmt: skip
    assert len(lines) == 3 + MOST + 2 and every_key({"sources": {}, "missing": []}) == ""
