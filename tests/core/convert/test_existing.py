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


def test_what_was_converted_is_told_also_of_a_bundle_of_an_older_version():
    from tbd_core.checkpoint.report import origin

    old = {"recipe": "hallo-text", "dtype": "fp16", "sources": {"sd": {"is": None, "layouts": {}, "taken": 3}}}
    assert origin(old) == ["converted by recipe hallo-text as fp16", "  sd: of no known name; keys: 3 taken"]
    new = old | {"missing": 2, "fresh": {"audioproj, random": 8}}
    assert origin(new)[2:] == [
        "  started fresh: audioproj, random: 8 keys",
        "  missing from the sources, started fresh: 2 keys",
    ]
