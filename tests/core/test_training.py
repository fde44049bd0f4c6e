"""The training objective, the autoencoder's start, plans, and the whole recipe once; the loop has its own file."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tbd_core import likeness
from tbd_core.checkpoint import store
from tbd_core.config import SchedulerConfig
from tbd_core.data import recordings
from tbd_core.data.corpus import FRAMES, CorpusSize, draw_clips, draw_faces, shut_moments
from tbd_core.data.plans import AU_NUMBERS, Mix, random_plans, single_unit_plan, unit_levels
from tbd_core.denoise import make_scheduler
from tbd_core.errors import InputError
from tbd_core.evaluation.readers import load_readers
from tbd_core.facs.emotions import EMOTIONS, units_for
from tbd_core.facs.rules import hard_conflicts
from tbd_core.locks import alone
from tbd_core.synthetic.speech import babble
from tbd_core.training import run as whole_run
from tbd_core.training import show
from tbd_core.training.objective import add_noise, change, draw_drop, draw_timesteps, telling_cells, told, v_loss
from tbd_core.training.reader import split_people
from tbd_core.training.recipes import onward, smoke
from tbd_core.training.unet_start import shares


# The objective.


def test_weight_is_one_at_pure_noise_and_five_over_snr_plus_one_when_clean():
    scheduler = make_scheduler(SchedulerConfig())
    latents, noise = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    cells = torch.ones(2, 2)
    for t in (0, 300, 700, 999):
        alpha = float(scheduler.alphas_cumprod[t])
        snr = alpha / (1 - alpha)
        expected = min(snr + 1, 5) / (snr + 1) * alpha  # the target is sqrt(alpha) times the noise
        got = v_loss(scheduler, torch.zeros(1, 4, 2, 2), latents, noise, torch.tensor([t]), cells)
        assert float(got) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(scheduler.alphas_cumprod[999]) < 1e-6


def test_noise_and_target_agree_with_diffusers():
    scheduler = make_scheduler(SchedulerConfig())
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(3, 4, 2, 2, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 500, 999])
    assert torch.allclose(
        add_noise(scheduler, latents, noise, timesteps), scheduler.add_noise(latents, noise, timesteps)
    )
    velocity = scheduler.get_velocity(latents, noise, timesteps)
    assert float(v_loss(scheduler, velocity, latents, noise, timesteps, torch.ones(2, 2))) < 1e-10


def test_shares_of_what_is_told_are_as_stated():
    count = 4_000
    coarse, fine, label = (torch.full((count, 1, 1), v) for v in (1.0, 2.0, 4.0))
    timesteps = torch.full((count,), 599)  # u = 0.4: the second stage begins, the fine prompt alone
    generator = torch.Generator().manual_seed(0)
    out = told(coarse, fine, label, torch.ones(count, dtype=torch.bool), timesteps, 1000, (0.4,), generator).flatten()
    shares = {value: float((out == value).float().mean()) for value in (1.0, 2.0, 4.0)}
    assert shares[1.0] == pytest.approx(0.15, abs=0.02)
    assert shares[2.0] == pytest.approx(0.70, abs=0.03)  # blend 50 % (all fine here) + pure fine 20 %
    assert shares[4.0] == pytest.approx(0.15, abs=0.02)


def test_at_pure_noise_the_blend_is_all_coarse():
    coarse, fine, label = torch.ones(200, 1, 1), torch.zeros(200, 1, 1), torch.full((200, 1, 1), 9.0)
    out = told(coarse, fine, label, torch.zeros(200, dtype=torch.bool), torch.full((200,), 999), 1000, (0.4,),
               torch.Generator().manual_seed(1)).flatten()  # fmt: skip
    # A plan that is not exactly its emotion's is never told by coarse or label alone: blend (all coarse) or fine.
    assert set(out.tolist()) == {0.0, 1.0} and 0.4 < float(out.mean()) < 0.6


def test_conditions_are_dropped_together_and_alone_as_often_as_stated():
    generator = torch.Generator().manual_seed(0)
    drops = [draw_drop(generator) for _ in range(6_000)]
    share = {drop: drops.count(drop) / len(drops) for drop in set(drops)}
    assert share[(True, True, True)] == pytest.approx(0.10, abs=0.015)
    for single in ((True, False, False), (False, True, False), (False, False, True)):
        assert share[single] == pytest.approx(0.05, abs=0.01)


def test_cells_that_expressions_change_weigh_more_and_the_mean_is_one():
    portraits = torch.zeros(5, 4, 4, 4)
    faces = portraits.clone()
    faces[:4, :, 1, 2] = 1.0
    cells = telling_cells(change(portraits, faces))
    assert torch.allclose(cells.mean((1, 2)), torch.ones(5))
    assert (cells[:4].flatten(1).argmax(1) == 1 * 4 + 2).all() and (cells[4] == 1).all()  # the last one rests
    assert telling_cells(change(portraits, faces).mean(0)).argmax() == 1 * 4 + 2
    further = telling_cells(change(portraits, faces), 3.0, 10.0)  # up to ten times: 16 * 10 / (10 + 15)
    assert cells[0, 1, 2].item() == pytest.approx(4.0) and further[0, 1, 2].item() == pytest.approx(6.4)


def test_cells_of_each_sample_weigh_its_own_error():
    scheduler = make_scheduler(SchedulerConfig())
    latents, noise, timesteps = torch.zeros(2, 4, 2, 2), torch.ones(2, 4, 2, 2), torch.tensor([0, 999])
    cells = torch.tensor([1.0, 3.0]).view(2, 1, 1).expand(2, 2, 2)
    one, two = (
        float(v_loss(scheduler, latents[i], latents[i], noise[i], timesteps[i], torch.ones(2, 2)))
        for i in (slice(0, 1), slice(1, 2))
    )
    got = v_loss(scheduler, latents, latents, noise, timesteps, cells)
    assert float(got) == pytest.approx((one + 3 * two) / 2)


# The autoencoder's start.


def test_the_start_keeps_the_colour_of_every_cell():
    from tbd_core.models.build import build_vae
    from tbd_core.synthetic.portrait import neutral_face, random_identity, render
    from tbd_core.training.vae_start import start_with_colours

    torch.manual_seed(0)
    vae = build_vae(whole_run.tiny())
    picture = render(neutral_face(random_identity(torch.Generator().manual_seed(1), 1)), 128) * 2 - 1

    def agreement() -> float:
        """Correlation of the cells' colours, drawn against true."""
        with torch.no_grad():
            drawn = vae.decode(vae.encode(picture).latent_dist.mean).sample
        return float(
            torch.corrcoef(torch.stack([nn.functional.avg_pool2d(x, 16).flatten() for x in (drawn, picture)]))[0, 1]
        )

    plain = agreement()
    start_with_colours(vae, 4)
    assert agreement() > 0.9 > plain
    with pytest.raises(ValueError, match="4 channels a group; 5 are needed; take fewer groups than 16"):
        start_with_colours(vae, 16)


# Plans.


def test_random_plans_have_no_hard_conflicts_and_pure_ones_are_the_emotions():
    plans = random_plans(300, seed=4, mix=Mix(single=0.2, pure=0.5, one_sided=0.5))
    assert all(not hard_conflicts(plan.units) for plan in plans)
    assert all(plan.units == units_for(plan.emotion, plan.intensity) for plan in plans if plan.pure)
    assert 0.4 < sum(plan.pure for plan in plans) / 300 < 0.6
    assert random_plans(300, seed=4) == random_plans(300, seed=4) != random_plans(300, seed=5)


def test_levels_follow_the_plan_on_each_side():
    plans = random_plans(200, seed=6)
    levels = unit_levels(plans)
    for row, plan in zip(levels, plans, strict=True):
        for unit in plan.units:
            if unit.number not in AU_NUMBERS:
                continue
            left, right = row[AU_NUMBERS.index(unit.number)].tolist()
            value = "ABCDE".index(unit.level) / 5 + 0.2
            assert left == pytest.approx(0 if unit.side == "right" else value)
            assert right == pytest.approx(0 if unit.side == "left" else value)


def test_a_single_unit_plan_is_one_unit_alone():
    rng = random.Random(0)
    plans = [single_unit_plan(rng, one_sided=0.5) for _ in range(100)]
    assert all(len(plan.units) == 1 and not plan.pure for plan in plans)
    assert {plan.units[0].number for plan in plans} == set(AU_NUMBERS)


# Which timesteps are drawn, and what the corpus holds.


def test_timesteps_are_all_drawn_and_more_of_the_noisy_ones():
    drawn = draw_timesteps(200_000, 1000, torch.Generator().manual_seed(0))
    assert drawn.min() == 0 and drawn.max() == 999
    # t = 2u / (1 + u): half of them lie above 2/3, and the density at t is 2 / (2 - t)^2.
    assert (drawn >= 667).float().mean() == pytest.approx(0.5, abs=0.01)
    first, last = (drawn < 50).sum(), (drawn >= 950).sum()
    assert float(last / first) == pytest.approx(((2 - 0.025) / (2 - 0.975)) ** 2, rel=0.05)


def test_faces_stand_at_shut_mouths_more_often_than_speech_has_them(tmp_path):
    mouths = torch.ones(2, FRAMES, 3)
    mouths[0, 50:60] = 0.0
    mouths[1, 0] = 0.0  # no face may stand here
    assert shut_moments(mouths).tolist() == [[0, frame] for frame in range(50, 60)]
    size = CorpusSize(recordings=2, people=32, expressions=4, clips=0, pixels=16)
    faces, _ = draw_faces(tmp_path, size, mouths)
    shut = (faces["mouth"].amax(2) == 0).float().mean()
    assert 0.2 < float(shut) < 0.45


def test_every_open_mouth_of_the_corpus_is_that_of_a_recording(tmp_path):
    mouths = torch.rand(3, FRAMES, 3)
    size = CorpusSize(recordings=3, people=2, expressions=2, clips=2, pixels=16)
    faces, _ = draw_faces(tmp_path, size, mouths)
    which, when = faces["heard"].unbind(2)
    assert torch.equal(faces["mouth"], mouths[which, when])
    clips, _ = draw_clips(tmp_path, size, mouths)
    assert int(clips["heard"][:, 1].max()) + 18 <= FRAMES  # its windows lie within the recording
    assert clips["frames"].shape == (2, 16, 3, 16, 16)


# The whole.


NOBODY = replace(smoke().judged, people=0)


def without_voices(patches):
    """Babble in place of espeak-ng, which is wanted for training alone."""
    patches.setattr(recordings, "speak", lambda *_: babble(torch.Generator().manual_seed(0), 2.0))
    patches.setattr("tbd_core.data.corpus.check_voices", lambda: None)


@pytest.fixture(scope="module")
def unguided(small_config):
    """Draws in one pass a step (what is drawn is not what is tested here), and lacks the newer layers."""
    unet = replace(small_config.unet, reference_in=False, reference_out=0)
    vae = {name: value for name, value in small_config.vae.items() if name != "second_look_width"}
    return replace(small_config, unet=unet, vae=vae, defaults=replace(small_config.defaults, guidance=1.0))


@pytest.fixture(scope="module", autouse=True)
def little_is_shown_and_heard():
    """Two emotions of eight, three recordings of 24: the same path."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(show, "EMOTIONS", EMOTIONS[:2])
        patches.setattr(whole_run, "UNHEARD", 3)
        yield


@pytest.fixture(scope="module")
def smoked(unguided, tmp_path_factory):
    """(folder, what `train` told) of every part trained for two steps."""
    folder = tmp_path_factory.mktemp("smoked")
    with pytest.MonkeyPatch.context() as patches:
        without_voices(patches)
        return folder, whole_run.train(folder / "run", folder / "out.safetensors", smoke(), "cpu", unguided)


def test_the_whole_recipe_makes_a_bundle_that_draws(smoked, unguided):
    from tbd_core.checkpoint import store

    folder, about = smoked
    networks, loaded = store.load(folder / "out.safetensors")
    assert set(about["training"]["losses"]) == set(whole_run.PARTS)
    assert about["scores"]["cases"]["au_response_mean"] == 3
    assert loaded.vae["scaling_factor"] == networks.vae.config.scaling_factor != 1.0
    before, after = (load_file(folder / name) for name in ("run/vae.safetensors", "out.safetensors"))
    changed = {name for name, value in before.items() if not torch.equal(value.half(), after[name])}
    assert changed and all(name.startswith(("vae.decoder.", "vae.post_quant_conv.")) for name in changed)  # no encoder
    shown = {path.name for path in (folder / "run").glob("*.png")}
    assert shown == {f"{part}-000002.png" for part in ("vae", "decoder", "stage1", "stage2")}
    log = [json.loads(text)["part"] for text in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert log == list(whole_run.PARTS)
    words = (folder / "TINY.md").read_text()
    assert words.count("## Scores\nMeasured by `tbd train --recipe smoke --seed 0`:") == 1 and "emotions.jpg" in words
    assert (folder / "emotions.jpg").stat().st_size > 1000 and (folder / "reader.safetensors").exists()
    # Again: everything is there, nothing is trained.
    again = folder / "again" / "out.safetensors"
    told = whole_run.train(folder / "run", again, replace(smoke(), judged=NOBODY), "cpu", unguided)
    assert told["scores"] is None and "Not measured yet" in again.with_name("TINY.md").read_text()
    assert again.stat().st_size == (folder / "out.safetensors").stat().st_size
    assert len((folder / "run" / "log.jsonl").read_text().splitlines()) == len(whole_run.PARTS)


def test_going_on_from_a_bundle_leaves_what_is_not_trained_as_it_was(smoked, tmp_path, monkeypatch):
    without_voices(monkeypatch)
    folder, about = smoked
    first, made = folder / "out.safetensors", tmp_path / "on" / "on.safetensors"
    (drawn,) = (folder / "run").glob("drawn-*")
    shutil.copytree(drawn, tmp_path / "run" / drawn.name)  # the same drawings: they are not made twice
    quick = replace(smoke().stage1, show_every=0)
    kept = dict.fromkeys(("audio", "vae", "decoder", "stage1"), replace(quick, steps=0))
    going_on = replace(smoke(), name="going on", stage2=quick, judged=NOBODY, **kept)
    with pytest.raises(InputError, match="does not train the audio encoder, VAE, its decoder, stage 1; give --f"):
        whole_run.train(tmp_path / "run", made, going_on, "cpu")
    for beside in (first, folder / "other.safetensors"):
        with pytest.raises(InputError, match=rf"{beside.name} lies beside the bundle .* an --output in another folder"):
            whole_run.train(tmp_path / "run", beside, going_on, "cpu", start=first)
    told = whole_run.train(tmp_path / "run", made, going_on, "cpu", start=first)
    before, after = load_file(first), load_file(made)
    trained = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in trained} == {"text_encoder", "audioproj", "denoising_unet"}
    guided = [name for name in trained if name.startswith("denoising_unet.")]
    kinds = ["audio_modules", "motion_modules"]  # stage 2 teaches to hear and to relate frames, and nothing else
    assert {kind for name in guided for kind in kinds if kind in name} == set(kinds)
    assert all(any(kind in name for kind in kinds) for name in guided)
    assert told["training"]["from"] == about["training"] and told["training"]["losses"]["vae"] == {}
    assert told["training"]["hearing"] == about["training"]["hearing"]  # the ear is the same
    assert all(told["training"][name] == about["training"][name] for name in likeness.SIGNS)  # and the autoencoder
    words = made.with_name("TINY.md").read_text()  # tells of both runs
    assert "--from out.safetensors`" in words and "| VAE | kept |" in words and "| VAE | 2 |" in words
    # And another goes on from there with the decoder and stage 1.
    kept = dict.fromkeys(("text", "readers"), replace(quick, steps=0))
    other = replace(going_on, decoder=quick, stage1=quick, stage2=replace(quick, steps=0), **kept)
    # By then the preset has newer layers and is drawn otherwise.
    before = store.read_drawable(made)
    layers = replace(before.unet, reference_in=True, reference_out=1000)
    autoencoder = before.vae | {"second_look_width": 4}
    newer = replace(before, unet=layers, vae=autoencoder, defaults=replace(before.defaults, steps=3))
    monkeypatch.setitem(whole_run.PRESETS, before.preset, lambda: newer)
    last = tmp_path / "further" / "further.safetensors"
    whole_run.train(tmp_path / "run", last, other, "cpu", start=made)
    readers = [load_readers(path.with_name("reader.safetensors")).about["training"] for path in (first, made, last)]
    assert readers[1]["recipe"]["steps"] == 2 and readers[2] == readers[1]  # the last run kept them
    assert last.with_name("TINY.md").read_text().count("It went on from a bundle") == 2  # tells of all three runs
    further = store.read_drawable(last)
    assert not before.unet.reference_in and before.defaults.steps != 3
    assert further.unet.entries and further.unet.reference_out == 1000 and further.defaults.steps == 3
    before, after = after, load_file(last)
    table = "denoising_unet.reference_out.weight"
    new = {name for name in after.keys() - before.keys() if not name.startswith("vae.second_look.")}
    assert new == {"denoising_unet.reference_in.weight", table}
    assert "vae.second_look.conv_out.weight" in after and "vae.second_look.conv_out.weight" not in before
    assert torch.equal(after[table], shares(further.scheduler).half())  # known, not learnt
    trained = {name for name, value in after.items() if name not in before or not torch.equal(value, before[name])}
    parts = {name.split(".")[0] for name in trained}
    assert parts == {"audioproj", "reference_unet", "denoising_unet", "vae", likeness.PREFIX}
    learnt = {name.split(".")[1] for name in trained if name.startswith("vae.")}
    assert learnt == {"decoder", "post_quant_conv", "second_look"}
    assert not any("motion_modules" in name for name in trained)


def test_a_bundle_says_of_portraits_what_was_measured_on_them():
    latents = torch.randn(200, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents[-1] += 3  # held out, and unlike the others
    known, signs = whole_run.portraits_known(None, smoke(), latents, torch.tensor([31.0, 35.0, 33.0]))
    learnt, _ = split_people(200)
    for name, value in likeness.learn(latents[: learnt.stop]).items():
        assert torch.equal(known[name], value)
    far = likeness.distance(latents, **known)
    most = pytest.approx(float(far.quantile(0.99)), abs=1e-3)
    assert signs == {"vae_psnr_least_db": 31.0, "vae_psnr_most_db": 35.0, "portrait_distance_most": most}
    assert far[-1] > 1.1 * signs["portrait_distance_most"] > far[:-1].median()


def test_a_bundle_that_cannot_be_gone_on_from_is_refused_at_once(smoked, tmp_path):
    folder, _ = smoked
    first = shutil.copy(folder / "out.safetensors", tmp_path)
    with pytest.raises(InputError, match="draws 64 pixels, recipe 'onward' draws 128"):
        whole_run.train(tmp_path / "run", tmp_path / "on.safetensors", onward(), "cpu", start=Path(first))
    with pytest.raises(InputError, match=r"reader\.safetensors does not exist"):
        whole_run.train(tmp_path / "run", tmp_path / "on.safetensors", smoke(), "cpu", start=Path(first))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [("reader.safetensors", "is the readers' name"), ("model.ckpt", r"ends in '\.ckpt'; .* ends in \.safetensors")],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        whole_run.train(tmp_path / "run", tmp_path / name, smoke())
    assert not list(tmp_path.glob("run/*"))


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        alone(tmp_path / "lock", "a folder"),
        pytest.raises(
            InputError, match=rf"the training folder {tmp_path} is in use by another run \(process {os.getpid()}\)"
        ),
    ):
        whole_run.train(tmp_path, tmp_path / "out.safetensors", smoke())
    assert not list(tmp_path.iterdir())
