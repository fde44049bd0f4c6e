"""The text encoder of the bundled model (ours): CLIP's own architecture and vocabulary, small, taught to read prompts.

It learns to say from its token states which action unit acts how strongly on which side, and which emotion is meant;
then it is frozen, as the paper's is. The teacher's heads are thrown away."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..cot_fa.tokenizer import cut_to_budget
from ..data.plans import Plan, unit_levels
from ..facs.emotions import EMOTIONS, INTENSITIES
from .loop import Loss, Run


class Teacher(nn.Module):
    """Reads the last token's state (its end token, where a causal encoder has seen everything)."""

    def __init__(self, width: int, units: int):
        super().__init__()
        self.units = nn.Sequential(nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, units * 2))
        self.emotion = nn.Linear(width, len(EMOTIONS))
        self.intensity = nn.Linear(width, len(INTENSITIES))


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
        with run.autocast():
            states = embed(encoder, ids.to(run.device))
            last = states[:, -1]
            guessed, felt, how = teacher.units(last), teacher.emotion(last), teacher.intensity(last)
        # Coarse prompts do not know the units; labels know those of the plain emotion.
        knows = (kind == 0) | ((kind == 2) & pure[i])
        error = (guessed.float() - levels[i].flatten(1).to(run.device)).pow(2).mean(1)
        units = (error * knows.to(run.device)).sum() / knows.sum().clamp(min=1)
        names = cross_entropy(felt.float(), emotion[i].to(run.device))
        told = (kind != 1).to(run.device)
        degrees = (
            cross_entropy(how.float(), intensity[i].to(run.device), reduction="none") * told
        ).sum() / told.sum().clamp(min=1)
        total = 20 * units + 0.2 * names + 0.2 * degrees
        return {"loss": total, "units_rms": units.detach().sqrt(), "emotion": names.detach()}

    return loss
