"""Every public file at small width, and what `convert` makes of it."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tbd_core.checkpoint import convert as convert_module
from tbd_core.checkpoint.convert import convert
from tbd_core.checkpoint.plan import plan
from tbd_core.checkpoint.recipe import load_recipe
from tbd_core.config import replace
from tbd_core.errors import InputError


@pytest.fixture(scope="session")
def built():
    return {}


@pytest.fixture(scope="module", autouse=True)
def built_once(built):
    """The networks on the meta device, which `plan` only reads, are built once for each configuration; a key is spelt
    once in each layout."""
    from tbd_core.checkpoint import key_maps
    from tbd_core.checkpoint import plan as planning

    build = planning.networks_of

    def networks(config):
        key = json.dumps(config.to_dict(), sort_keys=True)
        if key not in built:
            built[key] = build(config)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "networks_of", networks)
        for kind, layouts in key_maps.LAYOUTS.items():
            patch.setitem(key_maps.LAYOUTS, kind, tuple(one._replace(rename=cache(one.rename)) for one in layouts))
        yield


@pytest.fixture(scope="session")
def public(root):
    """`public_files.py` as a module."""
    spec = importlib.util.spec_from_file_location("public_files", root / "tests" / "core" / "public_files.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="session")
def world(public, root, small_config, tmp_path_factory):
    """Every public file at small width, its tensors, and the recipes at that width."""
    folder = tmp_path_factory.mktemp("public")
    # Widths that grow as SD 1.5's do: a ResNet then has a shortcut where SD 1.5's has one.
    plain = {name: value for name, value in small_config.vae.items() if name != "second_look_width"}
    small = replace(
        small_config,
        unet=replace(small_config.unet, block_out_channels=(20, 28, 36, 36), reference_in=False, reference_out=0),
        vae=plain | {"block_out_channels": [8, 16, 24, 24], "layers_per_block": 2},
    )
    parts = public.sd(small)
    net_pth = public.hallo(small, list(public.hallo_names(root)))
    listener = public.wav2vec2(small)
    files = {
        "sd": public.diffusers_folder(folder / "sd15", parts),
        "vae": folder / "vae-ft-mse.safetensors",
        "motion": folder / "mm_sd_v15_v2.ckpt",
        "wav2vec2": folder / "wav2vec2",
        "hallo": folder / "net.pth",
    }
    save_file(public.old_vae(parts), files["vae"])
    torch.save(public.motion(net_pth), files["motion"])
    torch.save(net_pth, files["hallo"])
    listener.save_pretrained(files["wav2vec2"])

    def recipe(name: str):
        made = load_recipe(name)
        unet = replace(small.unet, audio=made.config.unet.audio, context=made.config.unet.context)
        return replace(made, config=replace(small, unet=unet))

    def given(name: str, **change) -> dict:
        chosen = {key: files["sd"] if key == "text" else files[key] for key in recipe(name).sources}
        return {key: value for key, value in (chosen | change).items() if value is not None}

    return SimpleNamespace(
        parts=parts, net_pth=net_pth, listener=listener, files=files, recipe=recipe, given=given, config=small
    )


@pytest.fixture(scope="session")
def bundle(world, tmp_path_factory):
    """`bundle(recipe)`: (its report, its path, its tensors), made once in fp32 so that nothing is rounded."""
    made = {}

    def make(name: str):
        if name not in made:
            path = tmp_path_factory.mktemp("made") / f"{name}.safetensors"
            report = convert(world.recipe(name), world.given(name), path, "fp32", seed=3)
            made[name] = (report, path, load_file(path))
        return made[name]

    return make


@pytest.fixture
def again(world, bundle, same, tmp_path):
    """`again(recipe, source=path …) -> report`: the bundle comes out the same with these files in place of the usual.
    Of the usual ones, which are those of `bundle`, it is enough that the same keys are taken."""

    def again(name: str, **change):
        recipe, given = world.recipe(name), world.given(name, **change)
        reference, _, expected = bundle(name)
        with convert_module.opened(recipe, given) as (sources, warnings):
            made = plan(recipe, sources, "fp32", seed=3)
            assert {step.key: step.shape for step in made.steps} == {k: tuple(v.shape) for k, v in expected.items()}
            assert {step.dtype for step in made.steps} == {"F32"}
            got = {}
            for step in made.steps:
                if step.source in change:
                    value = torch.frombuffer(bytearray(convert_module.value_of(made, step)), dtype=torch.float32)
                    got[step.key] = value.reshape(step.shape)
                elif step.source:
                    assert reference.sources[step.source].taken[step.key] == step.source_key
                else:
                    assert step.key in reference.fresh
            same(got, {key: expected[key] for key in got})
            assert got
            return convert_module.tell(made, tmp_path / "again.safetensors", warnings)

    return again


@pytest.fixture
def refused(world, tmp_path):
    """Converts, which must fail with one line that matches, and leave nothing behind."""

    def refused(name: str, pattern: str, dtype: str = "fp32", **change) -> None:
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        with pytest.raises(InputError, match=pattern) as caught:
            convert(world.recipe(name), world.given(name, **change), folder / "x.safetensors", dtype)
        assert "\n" not in str(caught.value)
        assert list(folder.iterdir()) == []

    return refused


@pytest.fixture(scope="session")
def same():
    """`same(got, expected)`: two dicts of tensors are equal, key for key."""

    def same(got: dict, expected: dict) -> None:
        assert got.keys() == expected.keys()
        differ = [key for key, value in got.items() if not torch.equal(value, expected[key])]
        assert differ == []

    return same


@pytest.fixture(scope="session")
def under():
    """`under(tensors, prefix)`: those whose names begin so, without it."""

    def under(tensors: dict, prefix: str) -> dict:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    return under


@pytest.fixture(scope="session")
def save():
    """`save(path, tensors) -> path`, as safetensors."""

    def save(path: Path, tensors: dict) -> Path:
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        return path

    return save


@pytest.fixture(scope="session")
def motion_adapter():
    """`motion_adapter(tensors, config, folder) -> folder`: diffusers' conversion of AnimateDiff's file."""

    def make(tensors: dict, config, folder: Path) -> Path:
        from diffusers import MotionAdapter
        from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

        adapter = MotionAdapter(
            block_out_channels=config.unet.block_out_channels,
            motion_num_attention_heads=config.unet.motion_num_heads,
            motion_norm_num_groups=config.unet.norm_num_groups,
        )
        lacks, strange = adapter.load_state_dict(convert_animatediff_checkpoint_to_diffusers(tensors), strict=False)
        assert strange == [] and all(key.endswith("pos_embed.pe") for key in lacks)  # it makes the same table itself
        adapter.save_pretrained(folder)
        return folder

    return make
