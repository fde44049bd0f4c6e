"""The readers that judge the model (`evaluation/readers.py`), taught on true renders alone.

Pictures are roughened as an autoencoder roughens them (softened, noisy, colours a little off), frame and portrait each
in its own way, so that the reading holds for pictures that went through one. What they err by is measured on true
renders of people who were held out, and stands in the file's header.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, cross_entropy, interpolate, mse_loss, pad

from ..data.plans import Plan, unit_levels
from ..evaluation.readers import ExpressionReader, IdentityReader, Readers
from ..evaluation.scores import determination, rms
from ..facs.emotions import EMOTIONS
from ..flow import LEVELS
from ..synthetic.face import AU_NUMBERS, IDENTITY, SIDED_UNITS
from .loop import Loss, Recipe, Run, fit


HELD_OUT = 64  # people the errors are measured on and never trained with (of a small corpus: an eighth)
SOFT = (0.06, 0.24, 0.4, 0.24, 0.06)  # a blur of about one pixel
NOISE, GAIN, OFFSET = 0.03, 0.08, 0.04  # at most: noise's spread, colour channels' gain and offset
# How much each part counts: a unit is at rest most of the time, so its squares are small.
WEIGHTS = {"units": 20.0, "mouth": 4.0, "closed": 1.0, "emotions": 0.1, "identity": 5.0}


def soften(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 3, H, W] in [0, 1] → as an autoencoder might give them back: a picture's softness and noise are its own."""

    def share(most: float) -> Tensor:
        return most * torch.rand(len(pictures), 1, 1, 1, generator=generator).to(pictures.device)

    line = torch.tensor(SOFT, device=pictures.device)
    soft = conv2d(pad(pictures.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate"), line.outer(line)[None, None])
    coarse = interpolate(avg_pool2d(pictures, 2), pictures.shape[-2:], mode="bilinear")
    pictures = pictures.lerp(soft[:, 0].unflatten(0, pictures.shape[:2]), share(1))
    pictures = pictures.lerp(coarse, share(1) * (share(1) > 0.5))
    noise = torch.randn(pictures.shape, generator=generator).to(pictures.device)
    return pictures + noise * share(NOISE)


def jitter(generator: torch.Generator, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(gain, offset) of the colour channels, [B, 3, 1, 1] each: shared by a frame and its portrait."""
    gain, offset = (2 * torch.rand(count, 3, 1, 1, generator=generator).to(device) - 1 for _ in range(2))
    return 1 + GAIN * gain, OFFSET * offset


def split_people(people: int) -> tuple[range, range]:
    """(those to learn from, those held out: the last ones)."""
    first = people - min(HELD_OUT, max(1, people // 8))
    return range(first), range(first, people)


def truths(faces: dict[str, Tensor], plans: list[Plan], people: range) -> dict[str, Tensor]:
    """What the corpus says of the expressions of `people`, one row a face: units, mouth, closed, emotions (an index, -1
    for plans that are not purely an emotion's), identity."""
    per = faces["faces"].shape[1]
    rows = slice(people.start, people.stop)
    chosen = plans[people.start * per : people.stop * per]
    units = unit_levels(chosen)
    shut = units[:, AU_NUMBERS.index(43)].amin(1)  # the eyes are as shut as the wider one
    return {
        "units": units,
        "mouth": faces["mouth"][rows].flatten(0, 1).float(),
        "closed": shut.maximum(faces["blink"][rows].flatten().float()),
        "emotions": torch.tensor([EMOTIONS.index(plan.emotion) if plan.pure else -1 for plan in chosen]),
        "identity": faces["identity"][rows].float().repeat_interleave(per, 0),
    }


def reader_loss(
    run: Run, expression: ExpressionReader, identity: IdentityReader, faces: dict[str, Tensor], plans: list[Plan],
    people: range, batch: int,
) -> Loss:  # fmt: skip
    """`faces` as `draw_faces` returns them: uint8 `portraits` [people, 3, H, W] and `faces` [people, expressions, 3, H,
    W], `identity`, `mouth`, `blink`. Only `people` are learnt from."""
    truth = truths(faces, plans, people)
    pictures, portraits = faces["faces"], faces["portraits"]
    per = pictures.shape[1]

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(people) * per, (batch,), generator=generator)
        who = people.start + rows // per
        frame = pictures[who, rows % per].to(run.device).float() / 255
        rest = portraits[who].to(run.device).float() / 255
        wanted = {name: value[rows].to(run.device) for name, value in truth.items()}
        gain, offset = jitter(generator, batch, frame.device)
        rough, rest = soften(frame, generator), soften(rest, generator)
        with run.autocast():
            read = expression(rough * gain + offset, rest * gain + offset)
            numbers = identity(rough).float()
        errors = {
            "units": mse_loss(read.units.float(), wanted["units"]),
            "mouth": mse_loss(read.mouth.float(), wanted["mouth"]),
            "closed": mse_loss(read.closed.float(), wanted["closed"]),
            "identity": mse_loss(numbers, wanted["identity"]),
        }
        pure = (wanted["emotions"] >= 0).sum().clamp(min=1)
        guesses = cross_entropy(read.emotions.float(), wanted["emotions"], ignore_index=-1, reduction="sum")
        errors["emotions"] = guesses / pure
        total = torch.stack([WEIGHTS[name] * value for name, value in errors.items()]).sum()
        return {"loss": total, **{name: value.detach() for name, value in errors.items()}}

    return loss


def measure(readers: Readers, faces: dict[str, Tensor], plans: list[Plan], people: range) -> dict[str, Any]:
    """What the readers err by on true renders of `people`: units in levels 0-5, root mean squares."""
    truth = truths(faces, plans, people)
    per = faces["faces"].shape[1]
    rows = slice(people.start, people.stop)
    frames = faces["faces"][rows].flatten(0, 1).float() / 255
    read = readers.read(frames, (faces["portraits"][rows].float() / 255).repeat_interleave(per, 0))
    numbers = readers.who(frames)
    seen = len(LEVELS) * (read.units - truth["units"])
    sides = truth["units"][..., 0] - truth["units"][..., 1]
    sided = (sides.abs() > 0) & torch.tensor([number in SIDED_UNITS for number in AU_NUMBERS])
    right = (read.units[..., 0] - read.units[..., 1])[sided].sign() == sides[sided].sign()
    pure = truth["emotions"] >= 0
    hit = read.emotions.argmax(1)[pure] == truth["emotions"][pure]
    return {
        "people": len(people),
        "pictures": len(frames),
        "au_rms": {str(n): rms(seen[:, i]) for i, n in enumerate(AU_NUMBERS)},
        "au_rms_mean": rms(seen),
        "mouth_rms": [rms((read.mouth - truth["mouth"])[:, i]) for i in range(3)],
        "closed_rms": rms(read.closed - truth["closed"]),
        "emotion_accuracy": share(hit),
        "side_accuracy": share(right),
        "identity_r2": {n: determination(truth["identity"][:, i], numbers[:, i]) for i, n in enumerate(IDENTITY)},
    }


def share(hits: Tensor) -> float | None:
    return round(float(hits.float().mean()), 4) if len(hits) else None


def train_reader(
    run: Run, faces: dict[str, Tensor], plans: list[Plan], recipe: Recipe, key: str, first: Readers | None = None
) -> Readers:
    """Train both readers, from nothing or on from `first`, and measure them on people held out (the last ones)."""
    known, unseen = split_people(len(faces["portraits"]))
    torch.manual_seed(recipe.seed)
    expression, identity = (first.expression, first.identity) if first else (ExpressionReader(), IdentityReader())
    expression, identity = expression.to(run.device), identity.to(run.device)
    for net in (expression, identity):
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    loss = reader_loss(run, expression, identity, faces, plans, known, recipe.batch)
    fit(run, "readers", {"expression": expression, "identity": identity}, loss, recipe, key)
    readers = Readers(expression.cpu().eval(), identity.cpu().eval(), {})
    training = {"people": len(known), "expressions": faces["faces"].shape[1], "recipe": asdict(recipe)}
    if first and not recipe.steps:  # measured here, but taught before
        training = first.about["training"]
    about = {"errors": measure(readers, faces, plans, unseen), "training": training}
    return Readers(readers.expression, readers.identity, about)
