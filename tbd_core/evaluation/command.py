"""`tbd evaluate`: its arguments, the call, and the scores as a table. Heavy libraries are loaded when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import TINY_BUNDLE
from ..errors import InputError


def add_arguments(made: argparse.ArgumentParser, whole: Callable[[str], int]) -> None:
    made.add_argument("model", type=Path, nargs="?", default=TINY_BUNDLE, help="a bundle (default: the one that ships)")
    made.add_argument(
        "--speech", type=Path, nargs="+", action="extend", default=[], help="recordings of real voices, for lip_r_real"
    )
    made.add_argument("--cases", type=whole, help="people that are drawn (default 3; time grows with it)")
    made.add_argument("--proof", type=Path, metavar="FOLDER", help="also write proof.md, proof.json, pictures there")
    made.add_argument(
        "--portraits", type=Path, nargs="+", action="extend", default=[], help="real ones that the proof shows"
    )
    made.add_argument("--seed", type=whole, default=0)
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--dtype", default="auto", help="auto, fp32, fp16 or bf16")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.portraits and arguments.proof is None:
        raise InputError(f"{len(arguments.portraits)} --portraits were given without --proof; add --proof FOLDER")

    from tqdm import tqdm

    from ..memory import keep_memory
    from .evaluate import EvaluateOptions, evaluate, prepare
    from .proof import ProofOptions, prove

    options = EvaluateOptions(
        model=arguments.model, speech=tuple(arguments.speech), cases=arguments.cases, seed=arguments.seed,
        device=arguments.device, dtype=arguments.dtype,
    )  # fmt: skip
    setup = prepare(options)
    keep_memory()
    with tqdm(desc="draw", unit="clip", file=sys.stderr) as bar:

        def on_clip(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        if arguments.proof is None:
            return evaluate(setup, on_clip).result
        return prove(setup, ProofOptions(arguments.proof, retold(arguments), tuple(arguments.portraits)), on_clip)


def retold(arguments: argparse.Namespace) -> str:
    """The command as the proof quotes it: what was asked for, files by their names alone."""
    words = ["tbd evaluate"]
    if arguments.model != TINY_BUNDLE:
        words.append(arguments.model.name)
    words += ["--proof", arguments.proof.name or "."]
    for name in ("speech", "portraits"):
        if files := getattr(arguments, name):
            words += [f"--{name}", *(path.name for path in files)]
    for name in ("cases", "seed"):
        if value := getattr(arguments, name):
            words += [f"--{name}", str(value)]
    return " ".join(words)


def show(result: dict[str, Any]) -> str:
    cases = result["cases"]
    lines = [f"{result['model']}: {result['people']} people, seed {result['seed']}, {result['wall_seconds']:.0f} s"]
    for name, count in cases.items():
        value = result[name]
        shown = "-" if value is None else f"{value:.4g}"
        lines.append(f"  {name:20s} {shown:>8s}  ({count} cases)")
    lines += [f"note: {text}" for text in result["notes"]]
    return "\n".join([*lines, *([f"written: {result['proof']}"] if "proof" in result else [])])
