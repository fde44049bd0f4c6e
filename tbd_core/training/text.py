"""The text encoder of the bundled model (ours): CLIP's own architecture and vocabulary, small, taught to read prompts.

It learns to say from its token states which action unit acts how strongly on which side, and which emotion is meant;
then it is frozen, as the paper's is. The teacher is thrown away."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..cot_fa.tokenizer import cut_to_budget
from ..data.plans import Plan, unit_levels
from ..facs.emotions import EMOTIONS, INTENSITIES
from .loop import Loss, Run


class Teacher(nn.Module):
    """Asks all token states by attention, as the denoiser will, with a question for each unit, for the emotion and for
    the intensity. (Asked of the last token's state alone, which had to hold everything, the sides were never learnt.)
    """

    def __init__(self, width: int, units: int):
        super().__init__()
        self.questions = nn.Linear(width, units + 2)
        self.units = nn.Parameter(torch.randn(units, width, 2) / width**0.5)
        self.emotion = nn.Linear(width, len(EMOTIONS))
        self.intensity = nn.Linear(width, len(INTENSITIES))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] → levels [B, units, 2], and what speaks for each emotion and each intensity."""
        answers = self.questions(states).softmax(1).transpose(1, 2) @ states  # [B, units + 2, D]
        levels = torch.einsum("bud,uds->bus", answers[:, :-2], self.units)
        return levels, self.emotion(answers[:, -2]), self.intensity(answers[:, -1])


def token_ids(texts: list[str]) -> Tensor:
    """[n, 77] ids, end token as padding, as SD 1.5's tokenizer pads."""
    return torch.tensor([cut_to_budget(text)[0] for text in texts])


def embed(encoder, ids: Tensor) -> Tensor:
    """[n, 77] → token states [n, 77, D]."""
    return encoder(input_ids=ids).last_hidden_state


@torch.no_grad()
def embed_texts(run: Run, encoder, texts: list[str], batch: int = 256) -> Tensor:
    return torch.cat([embed(encoder, ids.to(run.device)).half().cpu() for ids in token_ids(texts).split(batch)])


def text_loss(run: Run, encoder, teacher: Teacher, plans: list[Plan], batch: int) -> Loss:
    fine = token_ids([p.fine for p in plans])
    coarse = token_ids([p.coarse for p in plans])
    label = token_ids([p.label for p in plans])
    levels = unit_levels(plans)
    emotion = torch.tensor([EMOTIONS.index(p.emotion) for p in plans])
    intensity = torch.tensor([INTENSITIES.index(p.intensity) for p in plans])
    pure = torch.tensor([p.pure for p in plans])

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        i = torch.randint(len(plans), (batch,), generator=generator)
        kind = torch.multinomial(torch.tensor([0.6, 0.2, 0.2]), batch, replacement=True, generator=generator)
        ids = torch.stack([fine[i], coarse[i], label[i]])[kind, torch.arange(batch)]
        # In fp32: on a CPU bf16's causal attention takes three times as long.
        guessed, felt, how = teacher(embed(encoder, ids.to(run.device)))
        # Coarse prompts do not know the units; labels know those of the plain emotion.
        knows = (kind == 0) | ((kind == 2) & pure[i])
        error = (guessed - levels[i].to(run.device)).pow(2).mean((1, 2))
        units = (error * knows.to(run.device)).sum() / knows.sum().clamp(min=1)
        names = cross_entropy(felt, emotion[i].to(run.device))
        told = (kind != 1).to(run.device)
        degrees = (cross_entropy(how, intensity[i].to(run.device), reduction="none") * told).sum() / told.sum().clamp(
            min=1
        )
        total = 40 * units + 0.2 * names + 0.2 * degrees
        return {"loss": total, "units_rms": units.detach().sqrt(), "emotion": names.detach()}

    return loss
