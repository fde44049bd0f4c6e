"""The one training loop: AdamW, warm-up and cosine, EMA, a JSONL log, and checkpoints that make resuming the same
command again. Every step draws from its own generator, so a resumed run sees what an unbroken one would have."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..files import atomic


Loss = Callable[[torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """How one part is trained."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 50
    ema: float = 0.995
    weight_decay: float = 0.01
    save_every: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """Where a training run lives and what it computes on."""

    folder: Path
    device: torch.device

    def autocast(self):
        """bf16 for the products; weights and optimiser stay fp32."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def log(self, **values) -> None:
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")


def step_generator(seed: int, name: str, step: int) -> torch.Generator:
    """The randomness of one step, whatever was drawn before it."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}/{step}".encode()))


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def fit(
    run: Run,
    name: str,
    modules: Mapping[str, nn.Module],
    loss: Loss,
    recipe: Recipe,
    key: str,
    trained: Callable[[str], bool] = lambda _: True,
) -> None:
    """Train the parameters of `modules` whose names `trained` accepts; they end with their EMA weights.

    `loss(generator)` returns named scalars; "loss" is the one that is descended. `key` stands for all that the part
    depends on (its recipe, its sizes, the parts before it): with another key a finished part is trained anew.
    """
    done, half = run.folder / f"{name}.safetensors", run.folder / f"{name}.checkpoint.pt"
    if load_finished(done, modules, key):
        return
    parameters = []
    for module in modules.values():
        for label, parameter in module.named_parameters():
            parameter.requires_grad_(trained(label))
            if trained(label):
                parameters.append(parameter)
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    ema = EMAModel(parameters, decay=recipe.ema, use_ema_warmup=True, power=0.75)
    start, spent = 0, 0.0
    smooth: dict[str, float] = {}
    if half.exists():
        state = torch.load(half, map_location="cpu", weights_only=True)
        if state["key"] == key:
            for label, module in modules.items():
                module.load_state_dict(state["modules"][label])
            optimizer.load_state_dict(state["optimizer"])
            ema.shadow_params = [p.to(run.device) for p in state["ema"]]
            start, spent, smooth = state["step"], state["seconds"], state["losses"]
            ema.optimization_step = start

    for module in modules.values():
        module.train()
    began = time.monotonic() - spent
    bar = tqdm(range(start, recipe.steps), desc=name, initial=start, total=recipe.steps, mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        values = loss(step_generator(recipe.seed, name, step))
        optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(f"{name}: the gradient is {norm} at step {step}; lower the learning rate")
        optimizer.step()
        ema.step(parameters)

        for label, value in values.items():
            smooth[label] = 0.95 * smooth.get(label, float(value.detach())) + 0.05 * float(value.detach())
        if (step + 1) % 20 == 0 or step + 1 == recipe.steps:
            shown = {k: float(f"{v:.4g}") for k, v in smooth.items()}
            bar.set_postfix(shown, refresh=False)
            run.log(part=name, step=step + 1, **shown, seconds=round(time.monotonic() - began, 1))
        if (step + 1) % recipe.save_every == 0 and step + 1 < recipe.steps:
            state = {
                "key": key,
                "modules": {label: module.state_dict() for label, module in modules.items()},
                "optimizer": optimizer.state_dict(),
                "ema": ema.shadow_params,
                "step": step + 1,
                "losses": smooth,
                "seconds": time.monotonic() - began,
            }
            with atomic(half) as partial:
                torch.save(state, partial)

    ema.copy_to(parameters)
    for module in modules.values():
        module.eval()
    about = {"key": key, "recipe": asdict(recipe), "seconds": time.monotonic() - began, "losses": smooth}
    save_modules(done, modules, about)
    half.unlink(missing_ok=True)


def save_modules(path: Path, modules: Mapping[str, nn.Module], about: dict) -> None:
    """One finished part with what it cost, whole or not at all."""
    tensors = {f"{k}.{n}": v.contiguous() for k, module in modules.items() for n, v in module.state_dict().items()}
    with atomic(path) as partial:
        save_file(tensors, partial, {"about": json.dumps(about)})


def read_about(path: Path) -> dict:
    """Key, recipe, seconds and losses of a finished part."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["about"])


def load_finished(path: Path, modules: Mapping[str, nn.Module], key: str) -> bool:
    """Fill `modules` from a finished part of the same key."""
    if not path.exists() or read_about(path)["key"] != key:
        return False
    tensors = load_file(path)
    for label, module in modules.items():
        prefix = f"{label}."
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        module.eval()
    return True
