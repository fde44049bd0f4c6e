"""Render Video: the file, going on after a stop, and one name for one set of inputs."""

from pathlib import Path

import pytest
import torch

from tbd_core.video import probe, read_metadata


@pytest.fixture
def render(bundle, run, pack, wires, folders):
    from tbd_pack.nodes.rendering import TBDRenderVideo

    usual = wires | dict(vae=bundle.vae, filename_prefix="video/tbd")
    return lambda **changed: run(TBDRenderVideo, **(usual | changed))


@pytest.fixture
def passes(bundle, monkeypatch):
    """A list that grows with every pass of the denoiser."""
    network, seen = type(bundle.model.model.diffusion_model), []
    whole = network.forward
    monkeypatch.setattr(network, "forward", lambda *given, **named: seen.append(1) or whole(*given, **named))
    return seen


def file(output) -> Path:
    return Path(output.args[0].get_stream_source())


def test_the_video_lies_below_the_output_folder_with_its_sound(render, folders, sound):
    output = render(sound=sound(0.8, rate=22_050))
    path, shown = file(output), output.ui.as_dict()["images"][0]
    assert path.parent == folders / "output" / "video" and path.name.startswith("tbd_")
    assert shown == {"filename": path.name, "subfolder": "video", "type": "output"}
    facts = probe(path)
    assert (facts["width"], facts["height"], facts["fps"], facts["frames"]) == (64, 64, 25.0, 20)
    assert abs(facts["audio_seconds"] - 0.8) < 0.05
    assert read_metadata(path)["seed"] == 7
    assert output.args[1].splitlines()[-1] == str(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_queued_again_it_is_there_already(render, passes):
    first = file(render())
    drawn = len(passes)
    assert file(render()) == first and len(passes) == drawn


def test_a_stopped_run_goes_on_at_its_first_missing_clip(render, passes):
    import comfy.model_management as mm
    import comfy.utils

    whole = file(render())
    expected, each = whole.read_bytes(), len(passes) // 2
    whole.unlink()
    seen = []

    def cancel(value, total, preview, node_id):
        seen.append(value)
        if value == 3:  # in the second clip
            mm.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(cancel)
    with pytest.raises(mm.InterruptProcessingException):
        render()
    assert not whole.exists()
    comfy.utils.set_progress_bar_global_hook(lambda value, *_, **__: seen.append(value))
    seen.clear(), passes.clear()
    assert file(render()).read_bytes() == expected
    assert (seen, len(passes)) == ([3, 4], each)  # the bar goes on, too


def test_every_input_that_changes_the_picture_changes_the_name(render, bundle, monkeypatch, pack):
    from tbd_pack.nodes import rendering

    monkeypatch.setattr(rendering, "render", lambda *_: None)  # names alone
    names = [file(render()).name, file(render(seed=8)).name, file(render(guidance=3.0)).name]
    weight = next(iter(dict(bundle.model.model.named_parameters())))
    for value in (1.0, 2.0):
        patched = bundle.model.clone()
        patched.add_patches({weight: ("diff", (torch.full((2,), value),))}, 0.5)
        names.append(file(render(model=patched)).name)
    assert len(set(names)) == len(names)
    assert file(render(model=bundle.model.clone())).name == names[0]


def test_a_name_does_not_lead_out_of_the_output_folder(render):
    with pytest.raises(
        ValueError, match=r"filename_prefix '\.\./\.\./x' leads to .*, out of .*output; give a name below"
    ):
        render(filename_prefix="../../x")
