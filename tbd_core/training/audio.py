"""The audio encoder of the bundled model (ours): wav2vec2's own architecture, small, taught to hear the mouth.

From its layer outputs on the 25 fps grid a teacher reads how far the mouth opens, rounds and spreads, whatever the
voice, the room and the microphone; the truth is the clean sound's. Then it is frozen, as the paper's is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..conditioning import NOISE_FLOOR, audio_features, speech_features
from ..data.corpus import FRAMES
from ..data.recordings import roughen
from ..speech import normalise
from ..units import FPS, SAMPLES_PER_FRAME
from .loop import Loss, Run


HEARD = 4 * FPS  # frames of a recording in one sample
FOLLOW, MOVE = 0.05, 0.5  # weights of the correlation's and the movement's part in the loss


class Teacher(nn.Module):
    """Reads the mouth [.., 3] off each layer's output [.., width]."""

    def __init__(self, layers: int, width: int):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(width, 3) for _ in range(layers)])


def audio_loss(run: Run, encoder, teacher: Teacher, speech: dict[str, Tensor], batch: int) -> Loss:
    """`speech` as `draw_recordings` gives it. Squared error of every layer's reading, of its change from frame to
    frame, and what the last layer's opening lacks in correlation."""
    sounds, curves = speech["sounds"], speech["mouths"]

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        i = torch.randint(len(sounds), (batch,), generator=generator)
        first = torch.randint(FRAMES - HEARD + 1, (batch,), generator=generator).tolist()
        heard = torch.stack([normalise(x) for x in roughen(sounds[i].float(), generator)])
        heard = heard + NOISE_FLOOR * torch.randn(heard.shape, generator=generator)
        spans = [slice(n * SAMPLES_PER_FRAME, (n + HEARD) * SAMPLES_PER_FRAME) for n in first]
        heard = torch.stack([sound[span] for sound, span in zip(heard, spans, strict=True)]).to(run.device)
        truth = torch.stack([curve[n : n + HEARD] for curve, n in zip(curves[i], first, strict=True)]).to(run.device)
        with run.autocast():
            layers = audio_features(encoder, heard, HEARD)  # [B, F, L, C]
            guesses = torch.stack([head(layers[:, :, n]).float() for n, head in enumerate(teacher.heads)])
        error = (guesses - truth).pow(2).mean((1, 2, 3)).sum()
        moved = (guesses.diff(dim=2) - truth.diff(dim=1)).pow(2).mean((1, 2, 3)).sum()
        follow = pearson(guesses[-1, ..., 0].flatten(), truth[..., 0].flatten())
        total = error + MOVE * moved + FOLLOW * (1 - follow)
        return {
            "loss": total,
            "mouth_rms": (guesses[-1] - truth).pow(2).mean().sqrt().detach(),
            "opening_r": follow.detach(),
        }

    return loss


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Correlation of two curves [N]; 0 where one of them is flat."""
    one, other = one - one.mean(), other - other.mean()
    return (one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-6)


@torch.no_grad()
def read_mouth(encoder, teacher: Teacher, sound: Tensor) -> Tensor:
    """Opening, rounding, spread that the last layer tells of `sound` [T] at 16 kHz, heard as at inference: [F, 3]."""
    heard = speech_features(encoder, normalise(sound), len(sound) // SAMPLES_PER_FRAME)
    head = teacher.heads[-1]
    return head(heard[:, -1].to(next(head.parameters()).device)).float().cpu()


def audio_score(encoder, teacher: Teacher, speech: dict[str, Tensor]) -> dict[str, float]:
    """How well the opening is heard on `speech` never trained with: Pearson r at lag 0 of each recording, their mean
    and the worst, clean and roughened; rounding and spread clean."""
    sounds = speech["sounds"].float()
    rough = roughen(sounds, torch.Generator().manual_seed(0))
    modes = [(m, m.training) for m in (encoder, teacher)]
    scores: dict[str, list[Tensor]] = {name: [] for name in ("opening", "rounding", "spread", "rough_opening")}
    for module, _ in modes:
        module.eval()
    for clean, dirty, truth in zip(sounds, rough, speech["mouths"], strict=True):
        heard, heard_rough = (read_mouth(encoder, teacher, sound) for sound in (clean, dirty))
        for n, name in enumerate(("opening", "rounding", "spread")):
            scores[name].append(pearson(heard[:, n], truth[:, n]))
        scores["rough_opening"].append(pearson(heard_rough[:, 0], truth[:, 0]))
    for module, training in modes:
        module.train(training)
    means = {f"{name}_r": float(torch.stack(values).mean()) for name, values in scores.items()}
    return {**means, "opening_r_worst": float(torch.stack(scores["opening"]).min())}
