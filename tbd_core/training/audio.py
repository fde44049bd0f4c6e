"""The audio encoder of the bundled model (ours): wav2vec2's own architecture, small, taught to hear the mouth.

From its layer outputs on the 25 fps grid a teacher reads how far the mouth opens, rounds and spreads, whatever the
gain and noise; then it is frozen, as the paper's is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..conditioning import audio_features
from ..speech import normalise
from ..synthetic.clip import mouth_from_sound
from ..synthetic.speech import babble
from ..units import SAMPLES_PER_FRAME
from .loop import Loss, Run


SECONDS = 4.0  # of sound in one sample


class Teacher(nn.Module):
    def __init__(self, layers: int, width: int):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(width, 3) for _ in range(layers)])


def roughen(sound: Tensor, generator: torch.Generator) -> Tensor:
    """Another gain, some noise: the mouth is the same."""
    gain = 10 ** (torch.rand(len(sound), 1, generator=generator) * 1.5 - 1.2)
    noise = torch.randn(sound.shape, generator=generator)
    loudness = 10 ** (torch.rand(len(sound), 1, generator=generator) * 2 - 4)  # -80 to -40 dB of full scale
    return sound * gain + noise * loudness * gain


def audio_loss(run: Run, encoder, teacher: Teacher, recordings: int, batch: int, seed: int) -> Loss:
    generator = torch.Generator().manual_seed(seed)
    frames = int(SECONDS * 25)
    sounds = torch.stack([babble(generator, SECONDS)[: frames * SAMPLES_PER_FRAME].half() for _ in range(recordings)])
    curves = torch.stack([mouth_from_sound(sound.float(), frames) for sound in sounds])

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        i = torch.randint(recordings, (batch,), generator=generator)
        heard = torch.stack([normalise(x) for x in roughen(sounds[i].float(), generator)]).to(run.device)
        with run.autocast():
            layers = audio_features(encoder, heard, frames)  # [B, F, L, C]
            guesses = [head(layers[:, :, n]).float() for n, head in enumerate(teacher.heads)]
        truth = curves[i].to(run.device)
        errors = [(guess - truth).pow(2).mean() for guess in guesses]
        return {"loss": torch.stack(errors).sum(), "mouth_rms": errors[-1].detach().sqrt()}

    return loss
