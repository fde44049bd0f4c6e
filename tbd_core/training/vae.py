"""The autoencoder of the bundled model: pictures ↔ latents, f8, four channels (ours; diffusers' AutoencoderKL, folded).

A weak KL keeps latents bounded, and the decoder also learns from noised ones, so that the small errors a denoiser
leaves do not decode to blur. In the end the encoder stays as it is and the decoder goes on (as Stability's
sd-vae-ft-mse was made), together with the second look at what the encoder said. `vae_start` says where it begins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from .loop import Loss, Run
from .objective import change, telling_cells


KL_WEIGHT = 1e-5
NOISE = 0.03  # of the latents' own spread
SQUARES, LINES = 40.0, 0.3  # beside L1
STRAY = 0.2  # of what the second look adds, squared: latents stay near the encoder's
TELLING = 0.7  # how much more pixels count that expressions change


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def picture_loss(drawn: Tensor, truth: Tensor, pixels: Tensor) -> Tensor:
    """Squares above all, which faint lines survive (the median that L1 asks for would drop them), a little L1, and L1
    of the image gradients, which keeps lines sharp. `pixels` [H, W], of mean 1, is how much each counts."""
    error = drawn - truth
    lines = sum(l1_loss(a, b) for a, b in zip(edges(drawn), edges(truth), strict=True))
    return SQUARES * (error.square() * pixels).mean() + (error.abs() * pixels).mean() + LINES * lines


def telling_pixels(portraits: Tensor, faces: Tensor) -> Tensor:
    """[H, W] of mean 1: more where expressions change a picture."""
    sample, per = slice(0, 256), faces.shape[1]
    return telling_cells(
        change(portraits[sample].repeat_interleave(per, 0), faces[sample].flatten(0, 1)).mean(0), TELLING
    )


def vae_loss(run: Run, vae, portraits: Tensor, faces: Tensor, batch: int) -> Loss:
    """uint8 `portraits` [people, 3, H, W] and `faces` [people, expressions, 3, H, W], which are learnt from."""
    pictures, pixels = faces.flatten(0, 1), telling_pixels(portraits, faces).to(run.device)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        # Whole pictures: on crops the group norms would see other statistics than at inference.
        chosen = pictures[torch.randint(len(pictures), (batch,), generator=generator)]
        truth = (chosen.to(run.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            posterior = vae.first_look(truth)
            mean = posterior.mean.float()
            noise = torch.randn(mean.shape, generator=generator).to(run.device)
            noisy = mean + noise * (posterior.std.float() + NOISE * mean.detach().std())
            drawn = vae.decode(noisy).sample.float()
        kl = 0.5 * (mean**2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        picture = picture_loss(drawn, truth, pixels)
        return {"loss": picture + KL_WEIGHT * kl, "picture": picture.detach(), "kl": kl.detach()}

    return loss


def decoder_loss(run: Run, vae, latents: Tensor, portraits: Tensor, faces: Tensor, batch: int) -> Loss:
    """For the decoder and the second look: `latents` [people, expressions, 4, h, w] are the encoder's means of `faces`,
    and with what is added to them they are disturbed between not at all and as much as in `vae_loss`. Pictures as
    there."""
    pixels = telling_pixels(portraits, faces).to(run.device)
    pictures, latents = faces.flatten(0, 1), latents.flatten(0, 1)
    most = NOISE * float(latents.float().std())

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(pictures), (batch,), generator=generator)
        truth = pictures[rows].to(run.device).float() / 127.5 - 1
        truth = truth.contiguous(memory_format=torch.channels_last)
        noise = torch.randn(latents[rows].shape, generator=generator)
        amount = most * torch.rand(batch, 1, 1, 1, generator=generator)
        noise = (amount * noise).to(run.device)
        first = latents[rows].to(run.device).float().contiguous(memory_format=torch.channels_last)
        with run.autocast():
            added = torch.zeros_like(first) if vae.second_look is None else vae.look_again(truth, first).float()
            drawn = vae.decode(first + added + noise).sample.float()
        picture, stray = picture_loss(drawn, truth, pixels), added.square().mean()
        return {"loss": picture + STRAY * stray, "picture": picture.detach(), "stray": stray.detach()}

    return loss


@torch.no_grad()
def encode(run: Run, vae, pictures: Tensor, batch: int = 32, first: bool = False) -> Tensor:
    """uint8 [..., 3, H, W] → latents fp16 [..., 4, h, w], not yet scaled; with `first` without the second look."""
    out = []
    for chunk in pictures.flatten(0, -4).split(batch):
        x = (chunk.to(run.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            posterior = vae.first_look(x) if first else vae.encode(x).latent_dist
        out.append(posterior.mean.half().cpu())
    return torch.cat(out).unflatten(0, pictures.shape[:-3])


@torch.no_grad()
def psnr(run: Run, vae, pictures: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of encode → decode for each picture, in fp32."""
    total = []
    for chunk in pictures.split(16):
        x = (chunk.to(run.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        drawn = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        mse = ((drawn - x) / 2).pow(2).flatten(1).mean(1)
        total.append(-10 * torch.log10(mse))
    return torch.cat(total).cpu()
