"""What both stages of training show the networks: whom, saying what, going on from which frames."""

import pytest
import torch
from torch import nn

from tbd_core.models.build import build
from tbd_core.training import run as whole_run
from tbd_core.training import stages
from tbd_core.training.loop import Run
from tbd_core.units import CLIP_FRAMES, MOTION_FRAMES


def guided(config):
    """The networks of a stage with a ReferenceNet that counts the pictures it sees."""
    networks = build(config)
    seen = []
    features = networks.reference_unet.features
    networks.reference_unet.features = lambda latents, text: seen.append(len(latents)) or features(latents, text)
    return stages.Guided(networks.reference_unet, networks.denoising_unet, networks.audioproj), seen


def some_texts(count: int, width: int) -> stages.Texts:
    tokens = torch.randn(count, 77, width)
    return stages.Texts(tokens, tokens, tokens, tokens[:1], torch.ones(count, dtype=torch.bool))


def test_stage_1_shows_all_faces_of_a_person_for_one_run_of_reference_net(tmp_path, small_config):
    nets, seen = guided(small_config)
    projection = small_config.audio_projection
    faces, portraits = torch.randn(5, 3, 4, 4, 4), torch.randn(5, 4, 4, 4)
    windows = torch.randn(5, 3, 5, projection.layers, projection.channels)
    run = Run(tmp_path, torch.device("cpu"))
    texts, blink = some_texts(15, 16), torch.zeros(5, 3)
    loss = stages.stage1_loss(run, small_config, nets, portraits, faces, blink, windows, texts, batch=6)
    values = [loss(torch.Generator().manual_seed(seed))["loss"] for seed in range(4)]
    assert seen and set(seen) == {2}  # six faces: two people, three expressions each
    values[0].backward()
    assert all(bool(torch.isfinite(value)) for value in values)


def test_stage_1_hears_what_each_face_says(tmp_path, small_config):
    nets, _ = guided(small_config)
    for parameter in nets.denoiser.parameters():
        nn.init.normal_(parameter, std=0.2)
    projection = small_config.audio_projection
    faces, portraits, texts = torch.randn(2, 2, 4, 4, 4), torch.randn(2, 4, 4, 4), some_texts(4, 16)
    run = Run(tmp_path, torch.device("cpu"))

    def value(windows) -> float:
        loss = stages.stage1_loss(run, small_config, nets, portraits, faces, torch.zeros(2, 2), windows, texts, batch=4)
        return loss(torch.Generator().manual_seed(3))["loss"].item()

    silence = torch.zeros(2, 2, 5, projection.layers, projection.channels)
    assert value(silence) == value(silence) != value(silence + 1)


def test_a_face_hears_its_own_windows_and_no_others(tmp_path, small_config, monkeypatch):
    nets, _ = guided(small_config)
    projection = small_config.audio_projection
    numbers = torch.arange(6.0).view(3, 2)  # one for each face, which its latents and its windows hold
    faces = numbers.view(3, 2, 1, 1, 1).expand(-1, -1, 4, 4, 4)
    windows = numbers.view(3, 2, 1, 1, 1).expand(-1, -1, 5, projection.layers, projection.channels)
    drawn, heard, hear = [], [], nets.projection.forward
    noise = stages.add_noise
    monkeypatch.setattr(stages, "add_noise", lambda s, x, *a: drawn.append(x[:, 0, 0, 0]) or noise(s, x, *a))
    monkeypatch.setattr(nets.projection, "forward", lambda w: heard.append(w.flatten(1)[:, 0]) or hear(w))
    run = Run(tmp_path, torch.device("cpu"))
    loss = stages.stage1_loss(
        run, small_config, nets, torch.zeros(3, 4, 4, 4), faces, torch.zeros(3, 2), windows, some_texts(6, 16), batch=4
    )
    hearing = 0
    for seed in range(4):
        heard.clear()
        loss(torch.Generator().manual_seed(seed))
        if heard:  # not in the steps that drop the sound
            assert torch.equal(heard[0], drawn[-1]) and len(drawn[-1].unique()) > 1
            hearing += 1
    assert hearing


def test_a_clip_hears_from_the_frame_after_its_motion_frames():
    heard = torch.arange(2 * 50).view(2, 50)
    windows = whole_run.clip_windows(heard, torch.tensor([[0, 0], [1, 30]]))
    assert windows[0].tolist() == list(range(MOTION_FRAMES, MOTION_FRAMES + CLIP_FRAMES))
    assert windows[1].tolist() == [50 + 30 + MOTION_FRAMES + i for i in range(CLIP_FRAMES)]


def test_stage_2_goes_on_from_the_frames_before_or_from_the_portrait(tmp_path, small_config, monkeypatch):
    nets, _ = guided(small_config)
    projection = small_config.audio_projection
    frames = torch.arange(1.0, 1 + MOTION_FRAMES + CLIP_FRAMES).view(1, -1, 1, 1, 1)  # its number in each frame
    clips = frames.expand(2, -1, 4, 4, 4) + torch.tensor([0.0, 100.0]).view(2, 1, 1, 1, 1)
    portraits = torch.tensor([-1.0, -101.0]).view(2, 1, 1, 1).expand(-1, 4, 4, 4)
    windows = torch.zeros(2, CLIP_FRAMES, 5, projection.layers, projection.channels)
    shown, drawn = [], []
    see, noise = nets.reference.features, stages.add_noise
    monkeypatch.setattr(nets.reference, "features", lambda x, text: shown.append(x[:, 0, 0, 0]) or see(x, text))
    monkeypatch.setattr(stages, "add_noise", lambda s, x, *a: drawn.append(x[:, :, 0, 0, 0]) or noise(s, x, *a))
    run = Run(tmp_path, torch.device("cpu"))
    loss = stages.stage2_loss(run, small_config, nets, portraits, clips, windows, some_texts(2, 16), batch=2)
    begun = set()
    for seed in range(6):
        loss(torch.Generator().manual_seed(seed))
        for (portrait, *before), clip in zip(shown[-1].unflatten(0, (2, -1)).tolist(), drawn[-1].tolist(), strict=True):
            first = -portrait - 1  # 0 or 100: whose clip it is
            assert clip == [first + 1 + MOTION_FRAMES + i for i in range(CLIP_FRAMES)]
            begins = before == [portrait] * MOTION_FRAMES
            assert begins or before == [first + 1 + i for i in range(MOTION_FRAMES)]
            begun.add(begins)
    assert begun == {True, False}


def test_a_blink_weighs_no_cell_more_than_another(tmp_path, small_config):
    """Nothing tells of it: a face that blinks is weighed like one that changes everywhere alike."""
    nets, _ = guided(small_config)
    projection, run = small_config.audio_projection, Run(tmp_path, torch.device("cpu"))
    portraits, texts = torch.randn(2, 4, 4, 4), some_texts(4, 16)
    faces = portraits.unsqueeze(1).repeat(1, 2, 1, 1, 1)
    faces[:, 0, :, 1, 2] += 3.0  # everybody's first face changes in one cell of sixteen
    faces[:, 1] += 1.0  # the second everywhere
    windows = torch.zeros(2, 2, 5, projection.layers, projection.channels)

    def value(*blink: float) -> float:
        shut = torch.tensor(blink).expand(2, 2)
        loss = stages.stage1_loss(run, small_config, nets, portraits, faces, shut, windows, texts, batch=4)
        return loss(torch.Generator().manual_seed(3))["loss"].item()

    assert value(0.0, 1.0) == pytest.approx(value(0.0, 0.0), rel=1e-5)
    assert value(1.0, 0.0) != pytest.approx(value(0.0, 0.0), rel=1e-3)
