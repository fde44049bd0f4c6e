"""A bundle draws: middle frames of silent clips, or whole recordings, through the product's own path (conditioning,
progressive schedule, `denoise.draw_clip`, decoding) and with the bundle's own defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .. import conditioning, denoise, frames
from ..checkpoint import store
from ..config import ModelConfig
from ..devices import pick_device, pick_dtype
from ..models.build import Networks
from ..progressive import make_schedule
from ..speech import normalise, window_frames
from ..units import CLIP_FRAMES, MOTION_FRAMES, SAMPLES_PER_FRAME
from .cases import Case, num_clips


# Frames of a silent clip that are decoded: so far apart that a blink (5 frames) closes the eyes in one at most, and
# the median reading of the three is that of open eyes.
SEEN = (2, 7, 12)
MIDDLE = SEEN.index(7)

OnClip = Callable[[], None]  # after every clip; may raise to interrupt


@dataclass(frozen=True)
class Way:
    """Which of a plan's prompts guide, and how they follow each other. None: as the bundle says."""

    stages: tuple[str, ...] = ("coarse", "fine")  # of label, coarse, fine
    blend: str | None = None


AS_SHIPPED = Way()


@dataclass(frozen=True)
class Sitter:
    """A portrait as the networks see it."""

    latents: Tensor  # [1, C, h, w]
    reference: dict[str, Tensor]


@dataclass(frozen=True)
class Studio:
    """A loaded bundle and what stays the same from clip to clip."""

    networks: Networks
    config: ModelConfig
    on_clip: OnClip | None = None
    _words: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def open(cls, model: Path, device: str = "auto", dtype: str = "auto", on_clip: OnClip | None = None) -> Studio:
        """InputError as in `generate`."""
        where = pick_device(device)
        networks, config = store.load(model, where, pick_dtype(dtype, where))
        return cls(networks, config, on_clip)

    @property
    def pixels(self) -> int:
        return self.config.defaults.size

    def words(self, text: str) -> Tensor:
        if text not in self._words:
            self._words[text] = conditioning.text_states(self.networks, text)
        return self._words[text]

    @cached_property
    def silence(self) -> Tensor:
        """Windows of one silent clip, [F, window, L, C]."""
        return window_frames(self.hear(torch.zeros(CLIP_FRAMES * SAMPLES_PER_FRAME), CLIP_FRAMES))

    def hear(self, waveform: Tensor, num_frames: int) -> Tensor:
        encoder, chunk = self.networks.audio_encoder, self.config.audio_chunk
        return conditioning.speech_features(encoder, normalise(waveform), num_frames, chunk=chunk)

    @torch.inference_mode()
    def seat(self, portrait: Tensor) -> Sitter:
        """`portrait` [3, H, W] in [0, 1]."""
        latents = conditioning.portrait_latents(self.networks, portrait.unsqueeze(0) * 2 - 1)
        return Sitter(latents, denoise.see(self.networks.reference_unet, latents, self.words("")))

    @torch.inference_mode()
    def job(self, sitter: Sitter, case: Case, seed: int, way: Way = AS_SHIPPED) -> denoise.Job:
        defaults = self.config.defaults
        stages = len(way.stages)
        split = defaults.split if stages == len(defaults.split) + 1 else None
        steps = max(defaults.steps, stages)  # no stage may fall between two steps
        texts = [getattr(case.plan, name) for name in way.stages]
        return denoise.Job(
            networks=self.networks,
            config=self.config,
            schedule=make_schedule(steps, stages, split, way.blend or defaults.blend),
            guidance=denoise.Guidance(defaults.guidance),
            stages=tuple(self.words(text) for text in texts),
            negative=self.words(case.negative),
            empty=self.words(""),
            portrait=sitter.latents,
            reference=sitter.reference,
            seed=seed,
        )

    def still(self, sitter: Sitter, case: Case, seed: int, way: Way = AS_SHIPPED) -> Tensor:
        """The frames `SEEN` of one silent clip, uint8 [3, 3, H, W]."""
        before = denoise.first_motion(sitter.latents)
        latents = denoise.draw_clip(self.job(sitter, case, seed, way), self.silence, before, 0, 1)
        return self._finish(latents[list(SEEN)])

    def talk(self, sitter: Sitter, case: Case, waveform: Tensor, num_frames: int, seed: int) -> Iterator[Tensor]:
        """A whole recording, clip by clip: uint8 [F, 3, H, W] each, the last one cut to `num_frames` in all."""
        count = num_clips(num_frames)
        heard = self.hear(waveform, count * CLIP_FRAMES)
        job = self.job(sitter, case, seed)
        before = denoise.first_motion(sitter.latents)
        for clip in range(count):
            windows = window_frames(heard, range(clip * CLIP_FRAMES, (clip + 1) * CLIP_FRAMES))
            latents = denoise.draw_clip(job, windows, before, clip, count)
            before = latents[-MOTION_FRAMES:]
            yield self._finish(latents[: num_frames - clip * CLIP_FRAMES])

    def round_trip(self, picture: Tensor) -> Tensor:
        """[3, H, W] in [0, 1] → uint8 [3, H, W], through the autoencoder alone."""
        return self._decode(conditioning.portrait_latents(self.networks, picture.unsqueeze(0) * 2 - 1))[0]

    def _finish(self, latents: Tensor) -> Tensor:
        pictures = self._decode(latents)
        if self.on_clip:
            self.on_clip()
        return pictures

    def _decode(self, latents: Tensor) -> Tensor:
        pictures = torch.from_numpy(frames.decode(self.networks.vae, latents.float().cpu()))
        return pictures.permute(0, 3, 1, 2).contiguous()
