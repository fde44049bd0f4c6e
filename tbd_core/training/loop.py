"""The one training loop: AdamW and Muon, warm-up and cosine, EMA, a JSONL log, and checkpoints that make resuming the
same command again (ours).

Every step draws from its own randomness, so a resumed run sees what an unbroken one would have and ends with the same
weights, bit for bit, on the same machine with the same number of threads. A kill costs at most one checkpoint interval,
Ctrl-C nothing: the step is finished and saved first. One run at a time in a folder.
"""

from __future__ import annotations

import io
import json
import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ..devices import multiplies_bf16
from ..errors import InputError
from ..files import atomic
from .interrupts import Interrupts
from .kept import load_finished, reading, save_modules, writing
from .muon import Muon, inner


Loss = Callable[[torch.Generator], dict[str, Tensor]]
Validate = Callable[[int], None]
LOG_EVERY = 20  # steps


@dataclass(frozen=True)
class Recipe:
    """How one part is trained."""

    steps: int  # 0: it stays as the run finds it, in the bundle that it goes on from
    batch: int
    learning_rate: float  # AdamW's
    muon: float = 0.0  # Muon's, for the weights inside the networks; 0: they are AdamW's like the others
    warmup: int = 50
    ema: float = 0.995
    weight_decay: float = 0.01
    save_every: int = 100
    seed: int = 0
    show_every: int = 0  # steps between two calls of `validate`; 0: never

    def decides(self) -> dict[str, Any]:
        """What the weights depend on, for a part's key: all but how often is saved and shown, and what is not used."""
        unused = () if self.muon else ("muon",)
        return {k: v for k, v in asdict(self).items() if k not in ("save_every", "show_every", *unused)}


@dataclass(frozen=True)
class Run:
    """Where a training run lives and what it computes on."""

    folder: Path
    device: torch.device

    def autocast(self):
        """bf16 for the products where the device has it; weights and optimiser stay fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=multiplies_bf16(self.device))

    def log(self, **values) -> None:
        path = self.folder / "log.jsonl"
        with writing(path), open(path, "a") as file:
            file.write(json.dumps(values) + "\n")


def step_seed(*names: object) -> int:
    """A number for each combination of names, the same in every process."""
    return zlib.crc32("/".join(map(str, names)).encode())


def step_generator(seed: int, name: str, step: int) -> torch.Generator:
    """The randomness of one step, whatever was drawn before it."""
    return torch.Generator().manual_seed(step_seed(seed, name, step))


def schedule(recipe: Recipe, step: int) -> float:
    """Share of the learning rates at `step`: a linear warm-up, then a cosine down to 2 %."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def fit(
    run: Run,
    name: str,
    modules: Mapping[str, nn.Module],
    loss: Loss,
    recipe: Recipe,
    key: str,
    trained: Callable[[str], bool] = lambda _: True,
    validate: Validate | None = None,
) -> None:
    """Train the parameters of `modules` whose names `trained` accepts; they end with their EMA weights.

    `loss(generator)` returns named scalars; "loss" is the one that is descended. `key` stands for all that the part
    depends on (its recipe, its sizes, the parts before it): with another key a finished part is trained anew.
    `validate(steps done)` is called every `recipe.show_every` steps without gradients and with the EMA weights in
    place; what has been learnt so far is on the disk by then.

    Raises InputError when the loss or the gradient is not finite (that step is neither taken nor saved), when the
    folder takes no file (the checkpoint before stays) and when a file in it cannot be used. KeyboardInterrupt
    comes at the end of the step, after a checkpoint.
    """
    done = run.folder / f"{name}.safetensors"
    if load_finished(done, modules, key):
        return
    part = Part(run, name, modules, recipe, key, trained)
    part.resume()

    def due(every: int) -> bool:
        return every > 0 and part.step % every == 0

    with Interrupts() as interrupts, tqdm(desc=name, initial=part.step, total=recipe.steps, mininterval=5) as bar:
        while part.step < recipe.steps:
            # Dropout and the like draw from torch's own generator; they too must not see what was drawn before.
            torch.manual_seed(step_seed(recipe.seed, name, part.step, "modules"))
            part.learn(loss(step_generator(recipe.seed, name, part.step)))
            bar.update()
            if due(LOG_EVERY) or part.step == recipe.steps:
                bar.set_postfix(part.log(), refresh=False)
            if part.step == recipe.steps:
                break
            shown = validate if due(recipe.show_every) else None
            if due(recipe.save_every) or shown or interrupts.waiting:
                part.save()
            interrupts.deliver()
            if shown:
                part.show(shown)
        part.finish(done)
        if validate and due(recipe.show_every):
            with torch.no_grad():
                validate(part.step)


class Part:
    """One part while it is trained: its modules, what learns of them and how, and how far it is."""

    def __init__(
        self,
        run: Run,
        name: str,
        modules: Mapping[str, nn.Module],
        recipe: Recipe,
        key: str,
        trained: Callable[[str], bool],
    ) -> None:
        self.run, self.name, self.modules, self.recipe, self.key = run, name, modules, recipe, key
        self.checkpoint = run.folder / f"{name}.checkpoint.pt"
        self.parameters: list[nn.Parameter] = []
        inside: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module in modules.values():
            module.train()
            for label, parameter in module.named_parameters():
                parameter.requires_grad_(trained(label))
                if trained(label):
                    self.parameters.append(parameter)
                    (inside if recipe.muon and inner(label, parameter) else others).append(parameter)
        # Fused, a step over 12 million parameters in 800 tensors takes two CPU cores 13 ms, not 74 to 87. It takes for
        # granted that a gradient lies in memory as its parameter does; autograd sees to that.
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                others, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
            )
        ]
        if inside:
            self.optimizers.append(Muon(inside, recipe.muon, decay=recipe.weight_decay))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        self.ema = EMAModel(self.parameters, decay=recipe.ema, use_ema_warmup=True, power=0.75)
        self.step, self.saved, self.losses = 0, 0, dict[str, float]()
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent on the part, over all runs."""
        return time.monotonic() - self.began

    def learn(self, values: dict[str, Tensor]) -> None:
        """One step down `values["loss"]`."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(self.recipe, self.step)
        values["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        numbers = {label: float(value.detach()) for label, value in values.items()}
        self._refuse_what_is_not_finite("loss", numbers["loss"])
        self._refuse_what_is_not_finite("gradient", float(norm))
        for optimizer in self.optimizers:
            optimizer.step()
        self._follow()
        self.step += 1
        for label, value in numbers.items():
            if math.isfinite(value):
                self.losses[label] = 0.95 * self.losses.get(label, value) + 0.05 * value

    def _refuse_what_is_not_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        kept = f"the checkpoint of step {self.saved} is kept" if self.saved else "no checkpoint was due before"
        raise InputError(
            f"{self.name}: the {what} is {value} at step {self.step + 1} of {self.recipe.steps}, which is not taken; "
            f"{kept}; lower its learning rate in training/recipes.py or give another --seed: it is then trained anew"
        )

    @torch.no_grad()
    def _follow(self) -> None:
        """`EMAModel.step` in half its time: one call for all tensors."""
        self.ema.optimization_step += 1
        share = 1 - self.ema.get_decay(self.ema.optimization_step)
        torch._foreach_lerp_(self.ema.shadow_params, tuple(self.parameters), share)

    def log(self) -> dict[str, float]:
        """Add a line to the log; returns the smoothed losses, rounded."""
        shown = {label: float(f"{value:.4g}") for label, value in self.losses.items()}
        self.run.log(part=self.name, step=self.step, **shown, seconds=round(self.seconds, 1))
        return shown

    def show(self, validate: Validate) -> None:
        """Call `validate` with the EMA weights, then go on with the others."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        for module in self.modules.values():
            module.eval()
        try:
            with torch.no_grad():
                validate(self.step)
        finally:
            self.ema.restore(self.parameters)
            for module in self.modules.values():
                module.train()

    def save(self) -> None:
        """The checkpoint, whole or not at all."""
        state = {
            "key": self.key,
            "modules": {label: module.state_dict() for label, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "ema": self.ema.shadow_params,
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
        }
        held = io.BytesIO()  # torch's own file writer does not say why the disk took nothing
        torch.save(state, held)
        with writing(self.checkpoint), atomic(self.checkpoint) as partial:
            partial.write_bytes(held.getbuffer())
        self.saved = self.step

    def resume(self) -> None:
        """Go on from the checkpoint of the same key; what a killed run left half-written goes."""
        for left in self.run.folder.glob(f"{self.name}.*.part-*"):
            left.unlink(missing_ok=True)
        if not self.checkpoint.exists():
            return
        with reading(self.checkpoint):
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            if state["key"] != self.key:
                return
            for label, module in self.modules.items():
                module.load_state_dict(state["modules"][label])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
                # In memory as the parameters lie, which the fused step takes for granted.
                for parameter, held in optimizer.state.items():
                    for label, value in held.items():
                        if value.shape == parameter.shape:
                            held[label] = torch.empty_like(parameter, requires_grad=False).copy_(value)
            for shadow, saved in zip(self.ema.shadow_params, state["ema"], strict=True):
                shadow.copy_(saved)
            self.step = self.saved = self.ema.optimization_step = state["step"]
            self.losses, self.began = state["losses"], self.began - state["seconds"]

    def finish(self, done: Path) -> None:
        """Keep the EMA weights under the final name; the checkpoint goes."""
        self.ema.copy_to(self.parameters)
        for module in self.modules.values():
            module.eval()
        about = {"key": self.key, "recipe": asdict(self.recipe), "seconds": self.seconds, "losses": self.losses}
        save_modules(done, self.modules, about)
        self.checkpoint.unlink(missing_ok=True)
