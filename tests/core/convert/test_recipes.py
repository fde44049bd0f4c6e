"""Recipes and the command line of `convert`: all faults at once, one line each."""

import json
import re

import pytest

from tbd_core.checkpoint import plan as planning
from tbd_core.checkpoint.convert import convert
from tbd_core.checkpoint.plan import plan
from tbd_core.checkpoint.recipe import load_recipe, read_recipe
from tbd_core.checkpoint.recipe_config import CHOICES
from tbd_core.cli import main
from tbd_core.config import replace
from tbd_core.errors import InputError
from tbd_core.progressive import BLENDS


# Recipes.


TABLE = dict(name="r", preset="sd15", sources={"sd": "SD"}, parts=[dict(to="*", source="sd", take="sd-unet")])


def test_all_faults_of_a_recipe_come_at_once():
    table = TABLE | dict(
        colour="red",
        config={"unet": {"wings": 2}, "nest": {}},
        sources={"sd": {"about": "SD", "form": 1}, "vae": {"instead": "sky"}},
        parts=[dict(to="*", source="sea", take="sd-unet", form=1), dict(to="*", source="sd", take="sd"), {}],
    )
    with pytest.raises(InputError) as caught:
        read_recipe(table, "r.toml")
    for fault in (
        "recipe r.toml has 9 faults: unknown key colour (known are about, config, name, parts, preset, sources); ",
        "unknown key sources.sd.form", "sources.vae.instead is 'sky'", "unknown key parts[1].form",
        "parts[1].source is 'sea'; choose one of sd, vae", "parts[2].take is 'sd'; choose one of sd-unet",
        "parts[3] has no `to`", "unknown key config.unet.wings", "unknown table config.nest",
    ):  # fmt: skip
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (dict(preset="huge"), "preset is 'huge'; choose one of tiny, sd15"),
        (dict(config={"unet": {"context": "song"}}), "context is 'song'; choose text, face or both"),
        (dict(parts=[dict(to="*", start="warm")]), 'start is "fresh" alone'),
        (
            dict(parts=[dict(to="*", source="sd", take="sd-unet", missing="?")]),
            "missing is '?'; choose refuse or fresh",
        ),
        (dict(sources=[]), "sources is missing or not a table"),
        (dict(parts=[dict(to="*", source=["sd"], take="sd-unet")]), "parts[1].source is ['sd']; choose one of sd"),
        (dict(parts=[dict(to="*", source="sd", take=["x"])]), "parts[1].take is ['x']; choose one of sd-unet"),
        (dict(parts=[dict(to="*", start=["x"])]), 'parts[1]: start is "fresh" alone'),
        (dict(preset=["sd15"]), "preset is ['sd15']; choose one of tiny, sd15"),
        (dict(sources={"sd": {"instead": ["sd"]}}), "sources.sd.instead is ['sd'], which is no source"),
    ],
)
def test_a_wrong_recipe_is_told(change, fault):
    with pytest.raises(InputError, match=re.escape(fault)):
        read_recipe(TABLE | change, "r.toml")


@pytest.mark.parametrize(
    ("table", "key", "value", "fault"),
    [
        ("vae", "wings", 2, "unknown key config.vae.wings (known are act_fn, block_out_channels, "),
        ("vae", "scaling_factor", "x", "config.vae.scaling_factor is 'x', must be a number"),
        ("vae", "norm_num_groups", 7, "config.vae.norm_num_groups 7 cannot be built ("),
        ("vae", "down_block_types", ["x"], "config.vae.down_block_types ['x'] cannot be built ("),
        ("text_encoder", "wings", 2, "unknown key config.text_encoder.wings (known are "),
        ("text_encoder", "vocab_size", 2, "unknown key config.text_encoder.vocab_size (known are "),
        ("text_encoder", "num_attention_heads", 7, "config.text_encoder.num_attention_heads 7 cannot be built ("),
        ("audio_encoder", "conv_dim", [1, 2], "config.audio_encoder.conv_dim [1, 2] cannot be built ("),
        ("audio_encoder", "conv_dim", "x", "config.audio_encoder.conv_dim is 'x', must be a list, each a whole number"),
        ("audio_encoder", "hidden_dropout", 0.5, "unknown key config.audio_encoder.hidden_dropout (known are "),
        ("scheduler", "beta_schedule", "x", "config.scheduler.beta_schedule is 'x'; choose linear, scaled_linear"),
        ("scheduler", "beta_start", float("nan"), "config.scheduler.beta_start is nan, must be a number"),
        ("scheduler", "clip_sample", 1, "config.scheduler.clip_sample is 1, must be true or false"),
        ("unet", "num_heads", "many", "config.unet.num_heads is 'many', must be a whole number from 1"),
        ("unet", "num_heads", 0, "config.unet.num_heads is 0, must be a whole number from 1"),
        ("unet", "num_heads", 7, "config.unet: width 320 is not a multiple of num_heads (7)"),
        ("unet", "block_out_channels", [], "config.unet.block_out_channels is [], must be a list, each a whole number"),
        ("defaults", "blend", "x", "config.defaults.blend is 'x'; choose hard, paper, smooth"),
    ],
)
def test_a_value_that_no_network_takes_is_told_by_its_key_in_one_line(table, key, value, fault):
    with pytest.raises(InputError, match=re.escape(f"recipe r.toml has 1 faults: {fault}")) as caught:
        read_recipe(TABLE | {"config": {table: {key: value}}}, "r.toml")
    assert "\n" not in str(caught.value)


def test_changes_that_only_fit_together_are_taken():
    changes = {"text_encoder": {"hidden_size": 14, "num_attention_heads": 7}, "defaults": {"split": [1, 2]}}
    made = read_recipe(TABLE | {"config": changes}, "r.toml").config
    assert made.text_encoder["hidden_size"] == 14 and made.defaults.split == (1, 2)
    assert made.text_encoder["num_hidden_layers"] == 12 and CHOICES["defaults.blend"] == tuple(BLENDS)


def test_networks_that_do_not_fit_each_other_are_told(world, monkeypatch):
    recipe = world.recipe("paper-init")
    for changed, fault in (
        (
            dict(layers=3),
            r"config\.audio_projection\.layers is 3, config\.audio_encoder\.num_hidden_layers 2; make them",
        ),
        (
            dict(channels=8),
            r"config\.audio_projection\.channels is 8, config\.audio_encoder\.hidden_size 16; make them",
        ),
    ):
        config = replace(recipe.config, audio_projection=replace(recipe.config.audio_projection, **changed))
        with pytest.raises(InputError, match=rf"recipe paper-init: {fault} equal"):
            plan(replace(recipe, config=config), {})
    monkeypatch.setattr(planning, "networks_of", lambda config: (1, 2)[config.wings])
    with pytest.raises(InputError, match=r"recipe paper-init: its config describes no model \(.+wings.\); mend"):
        plan(recipe, {})


def test_a_recipe_must_cover_every_key_and_each_part_some(world):
    recipe = world.recipe("paper-init")
    kept = tuple(part for part in recipe.parts if part.to != "audioproj.*")
    with pytest.raises(InputError, match=r"says of 8 keys not where from \(audioproj\.proj1\.weight …\)"):
        convert(replace(recipe, parts=kept), world.given("paper-init"), "x.safetensors", dry_run=True)
    idle = replace(recipe, parts=(*recipe.parts, replace(recipe.parts[0], to="wings.*")))
    with pytest.raises(InputError, match=r"has parts that fit no key: wings\.\*"):
        convert(idle, world.given("paper-init"), "x.safetensors", dry_run=True)


def test_what_cannot_start_fresh_is_told(world):
    recipe = world.recipe("paper-init")
    parts = tuple(replace(part, source=None) if part.to == "audio_encoder.*" else part for part in recipe.parts)
    with pytest.raises(InputError, match=r"2 keys cannot start fresh \(audio_encoder\.\S+original0 …\); name a source"):
        convert(replace(recipe, parts=parts), world.given("paper-init"), "x.safetensors", dry_run=True)


def test_a_recipe_that_is_no_toml_or_unknown_is_told(tmp_path):
    (tmp_path / "r.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"r\.toml is not TOML \(.+\); see the recipes in"):
        load_recipe(tmp_path / "r.toml")
    with pytest.raises(InputError, match="unknown recipe 'soup'; choose hallo-compat, hallo-text, paper-init"):
        load_recipe("soup")


def test_sources_and_numbers_are_checked_first(world):
    for given, pattern in (
        ({}, r"recipe paper-init lacks 4 of 4 sources; give --source sd=PATH \(SD 1\.5: "),
        ({"sd": "x"}, r"lacks 2 of 4 sources; give --source motion=PATH \(mm_sd_v15_v2\.ckpt of AnimateDiff\); --so"),
        ({"wings": "x"}, r"recipe paper-init has no source 'wings'; it has sd, vae, motion, wav2vec2"),
    ):
        with pytest.raises(InputError, match=pattern):
            convert("paper-init", given, "x.safetensors")
    with pytest.raises(InputError, match="unknown dtype 'fp8'; choose fp16, bf16, fp32"):
        convert("paper-init", {}, "x.safetensors", "fp8")
    with pytest.raises(InputError, match="seed is -1; give a whole number from 0 to 2147483647"):
        convert("paper-init", {}, "x.safetensors", seed=-1)
    with pytest.raises(InputError, match=r"ends in '\.pth'; give a name that ends in \.safetensors"):
        convert("paper-init", {}, "x.pth")


# The command line.


@pytest.fixture
def small_recipe(world, root, tmp_path):
    """paper-init at small width, as a file."""
    text = (root / "tbd_core" / "checkpoint" / "recipes" / "paper-init.toml").read_text(encoding="utf-8")
    values = world.config.to_dict()
    for name in ("unet", "audio_projection", "vae", "text_encoder", "audio_encoder"):
        lines = [f"{key} = {json.dumps(value)}" for key, value in values[name].items()]
        text += "\n".join([f"\n[config.{name}]", *lines]) + "\n"
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_writes_the_bundle_and_tells_what_it_took(capsys, world, small_recipe, tmp_path):
    given = [f"{name}={path}" for name, path in world.given("paper-init").items()]
    output = tmp_path / "new" / "tbd_small.safetensors"
    words = ["convert", str(small_recipe), "-o", str(output), *(word for pair in given for word in ("--source", pair))]
    assert main([*words, "--dry-run"]) == 0
    assert "not written (dry run)" in capsys.readouterr().out and not output.exists()
    assert main([*words, "--dtype", "bf16"]) == 0
    out = capsys.readouterr().out
    assert "dead (never run): 140 keys" in out and "starts fresh: audioproj, random, seed 0: 8 keys" in out
    assert "taken: denoising_unet 448" in out and "warning: audioproj, denoising_unet start at random in part" in out
    assert main(["info", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "paper-init"
    assert main(["info", str(output)]) == 0
    about = capsys.readouterr().out
    assert "converted by recipe paper-init as bf16" in about and "fresh: audioproj, random, seed 0: 8 keys" in about
    assert "motion: a motion module; keys: 448 taken, 140" in about and "missing" not in about
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "tbd_small.safetensors is there already, and of other files or settings; give another" in error
    assert main([*words, "--dtype", "bf16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outcome"] == "kept" and not told["written"]
    assert main([*words, "--replace", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outcome"] == "replaced" and told["written"]
    assert told["sources"]["sd"]["taken"]["denoising_unet.conv_in.weight"] == "unet.conv_in.weight"


def test_the_command_refuses_in_one_line(capsys):
    for words, said in (
        (["paper-init", "-o", "x.safetensors"], "lacks 4 of 4 sources"),
        (["paper-init", "-o", "x.safetensors", "--source", "sd"], "'sd' is not NAME=PATH"),
        (["paper-init", "-o", "x.safetensors", "--source", "a=b", "--source", "a=c"], "names a twice"),
        (["soup", "-o", "x.safetensors"], "unknown recipe 'soup'"),
    ):
        assert main(["convert", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1
