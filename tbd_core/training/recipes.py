"""What decides a bundled model beside its sizes (`config.tiny`): how much is drawn, and how each part is trained."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.corpus import CorpusSize
from ..evaluation.cases import CaseSizes
from .loop import Recipe


@dataclass(frozen=True)
class Recipes:
    """One line for each part; together with the seed they determine the model."""

    name: str
    corpus: CorpusSize
    audio: Recipe
    text: Recipe
    vae: Recipe
    decoder: Recipe
    readers: Recipe
    stage1: Recipe
    stage2: Recipe
    judged: CaseSizes = CaseSizes()  # how much is drawn to be judged in the end


def tiny_recipes(seed: int = 0) -> Recipes:
    """The bundled model from nothing: what two CPU cores do in an afternoon."""
    return Recipes(
        name="tiny",
        corpus=CorpusSize(recordings=400, people=6000, expressions=4, clips=1440, pixels=128),
        audio=Recipe(steps=600, batch=8, learning_rate=2e-3, seed=seed),
        text=Recipe(steps=1600, batch=48, learning_rate=2e-3, seed=seed),
        vae=Recipe(steps=15_000, batch=6, learning_rate=2e-3, muon=0.01, save_every=500, show_every=3000, seed=seed),
        decoder=Recipe(steps=8000, batch=8, learning_rate=1e-3, muon=0.008, save_every=500, show_every=2000, seed=seed),
        readers=Recipe(steps=4000, batch=32, learning_rate=2e-3, seed=seed),
        stage1=Recipe(steps=7000, batch=16, learning_rate=8e-4, muon=0.01, show_every=1000, seed=seed),
        stage2=Recipe(steps=2000, batch=2, learning_rate=8e-4, muon=0.01, show_every=500, seed=seed),
    )


def onward(seed: int = 0) -> Recipes:
    """On from a trained bundle: the VAE's decoder and second look, then both stages. The encoders and the readers
    stay."""
    kept = Recipe(steps=0, batch=8, learning_rate=0.0, seed=seed)
    return Recipes(
        name="onward",
        corpus=CorpusSize(recordings=300, people=6000, expressions=4, clips=1440, pixels=128, seed=4),
        audio=kept,
        text=kept,
        vae=kept,
        decoder=Recipe(steps=5000, batch=8, learning_rate=1e-3, muon=0.008, save_every=500, show_every=2500, seed=seed),
        readers=kept,
        stage1=Recipe(steps=5500, batch=16, learning_rate=8e-4, muon=0.008, show_every=1000, seed=seed),
        stage2=Recipe(steps=2000, batch=2, learning_rate=8e-4, muon=0.01, show_every=500, seed=seed),
    )


def smoke(seed: int = 0) -> Recipes:
    """Every part for a few steps: proves the path, teaches nothing."""
    quick = Recipe(steps=2, batch=2, learning_rate=1e-3, warmup=1, save_every=1, show_every=2, seed=seed)
    size = CorpusSize(recordings=4, people=24, expressions=2, clips=4, pixels=64)
    judged = CaseSizes(people=1, units=(12,), emotions=("happy",), voices=())
    return Recipes("smoke", size, quick, quick, quick, quick, quick, quick, quick, judged=judged)


RECIPES = {"tiny": tiny_recipes, "onward": onward, "smoke": smoke}
