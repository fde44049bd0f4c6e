"""The command line: `tbd` or `python -m tbd_core`. Words in, one call, words (or one JSON object) out.

Exit codes: 0 done, 2 something given cannot be used (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .config import TINY_BUNDLE, GenerateOptions
from .errors import InputError
from .evaluation import command as evaluation
from .flow import StepReport


MOST_SEED = 2**31 - 1  # of training, which multiplies it


class Parser(argparse.ArgumentParser):
    """One line for a wrong command line as for any wrong input."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    # A terminated run ends as an interrupted one: nothing half-written stays, finished clips are kept.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = parser().parse_args(argv)
        refuse_broken_text(arguments)
        result = arguments.run(arguments)
        text = json.dumps(result) if arguments.json else arguments.show(result)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter shows its number
        sys.stdout.write(f"{text}\n")
        return 0
    except InputError as error:
        sys.stderr.write(f"tbd: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        kept = "finished clips and training steps are kept, the same command goes on"
        if {"evaluate", "convert"} & set((sys.argv[1:] if argv is None else argv)[:1]):
            kept = "nothing was written, the same command begins anew"
        sys.stderr.write(f"tbd: interrupted; {kept}\n")
        return 130


def refuse_broken_text(arguments: argparse.Namespace) -> None:
    """Bytes of the command line that are no text arrive as lone surrogates, which no prompt can hold."""
    for name, value in vars(arguments).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError(f"--{name} has bytes that are not UTF-8 text: {ascii(text)}; type it anew")


def _interrupt(_signal: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def parser() -> Parser:
    top = Parser(prog="tbd", description="Think before you draw: portrait + speech + emotion -> talking video.")
    top.add_argument("--version", action="version", version=f"tbd {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, run, show, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")
        made.set_defaults(run=run, show=show)
        return made

    _generate_arguments(command("generate", run_generate, show_generate, "make a talking video"))

    made = command("prompts", run_prompts, show_prompts, "think only: action units, muscles, prompts")
    _thought_arguments(made)
    made.add_argument("--style", default="clip", help="clip (77 tokens) or natural (fuller sentences)")
    made.add_argument("--portrait", type=Path, help="named in step I; a server or vlm looks at it, the rules do not")

    made = command("schedule", run_schedule, show_schedule, "print the progressive schedule, one row a step")
    made.add_argument("--steps", type=whole, required=True, help="denoising steps")
    made.add_argument("--stages", type=whole, default=2, help="prompts from coarse to fine (default 2)")
    made.add_argument("--split", type=numbers, help="rising boundaries in (0, 1), e.g. 0.4 or 0.3,0.6")
    made.add_argument("--blend", default="hard", help="hard, paper or smooth")
    made.add_argument("--progress", default="denoise", help="denoise (coarse first) or literal")

    made = command("info", run_info, show_info, "say what is in a model file")
    made.add_argument("file", type=Path)

    _convert_arguments(command("convert", run_convert, show_convert, "public weights -> a full-size model file"))

    made = command("train", run_train, show_train, "train the small model; the same command again goes on")
    made.add_argument(
        "--recipe", default="tiny",
        help="tiny (an afternoon on two cores), onward (1.5 hours, with --from) or smoke (a minute); want espeak-ng",
    )  # fmt: skip
    made.add_argument(
        "--from", type=Path, dest="start", metavar="BUNDLE", help="train on from a bundle's networks; wants --output"
    )
    made.add_argument("--folder", type=Path, help="checkpoints, drawings, log.jsonl (default: runs/RECIPE)")
    made.add_argument("--output", type=Path, help="the bundle to write (default: the one that ships; smoke: FOLDER)")
    made.add_argument("--seed", type=whole, default=0)
    made.add_argument("--cases", type=whole, help="people to judge it by in the end (default 3; 0: not now)")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")

    about = "measure a bundle on people and voices it never met"
    evaluation.add_arguments(command("evaluate", evaluation.run, evaluation.show, about), whole)

    about = "twelve evenly spaced frames of a video as one picture"
    made = command("contact-sheet", run_contact_sheet, lambda result: result["output"], about)
    made.add_argument("video", type=Path)
    made.add_argument("--output", type=Path, help="default: the video's name with .png")
    return top


def _thought_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--emotion", required=True, help="happy sad angry surprised fear disgusted contempt neutral")
    made.add_argument("--intensity", default="moderate", help="mild, moderate or intense")
    made.add_argument("--subject", help='who is seen, e.g. "a young woman with red hair" (default "a person")')
    made.add_argument("--thinker", default="rules", help="who thinks: rules (default), server or vlm")
    made.add_argument(
        "--thinker-url", help="a server that speaks OpenAI's chat completions (default: Ollama's on this machine)"
    )
    made.add_argument("--thinker-model", help="server: the model's name there; vlm: the folder of a transformers model")


def _generate_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--portrait", type=Path, required=True, help="a picture of one face")
    made.add_argument("--speech", type=Path, required=True, help="a recording of a voice")
    _thought_arguments(made)
    made.add_argument("--thinker-stays", action="store_true", help="vlm: keep it in memory while the video is drawn")
    made.add_argument("--prompt", action="append", default=[], help="a stage's prompt; repeat it, coarse to fine")
    made.add_argument("--coarse", help="replaces the coarse prompt")
    made.add_argument("--fine", help="replaces the fine prompt")
    made.add_argument("--negative", help="replaces the negative prompt (may be empty)")
    made.add_argument("--model", type=Path, default=TINY_BUNDLE, help="a bundle (default: the one that ships)")
    made.add_argument("--steps", type=whole, help="denoising steps (default: the bundle's)")
    made.add_argument("--guidance", type=number, help="how hard all conditions pull (default: the bundle's)")
    made.add_argument("--text-scale", type=number, help="how hard the text alone pulls (one more pass)")
    made.add_argument("--audio-scale", type=number, help="how hard the speech alone pulls (one more pass)")
    made.add_argument("--blend", help="hard, paper or smooth (default: the bundle's)")
    made.add_argument("--split", type=numbers, help="where one prompt gives way to the next, in (0, 1)")
    made.add_argument("--seed", type=whole, default=0)
    made.add_argument("--size", help="N or WxH pixels, multiples of 8 (default: the trained square)")
    _face_arguments(made)
    _speech_arguments(made)
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--dtype", default="auto", help="auto, fp32, fp16 or bf16")
    made.add_argument(
        "--offload", default="none",
        help="where weights wait on a GPU: none (there), cpu (each network there while it is used) or sequential (each "
        "layer; the least memory, slow)",
    )  # fmt: skip
    made.add_argument("--output", type=Path, default=Path("output/talking.mp4"), help="an .mp4 (default %(default)s)")


def _face_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--face", default="whole", metavar="auto|whole|N|X,Y,W,H",
        help="whole: the whole picture (default); auto: around the largest face; N: around the Nth from the left; "
        "X,Y,W,H: around this box in pixels of the portrait",
    )  # fmt: skip
    made.add_argument("--face-margin", type=number, help="around the face on each side, in faces (default 0.5)")
    made.add_argument(
        "--face-detector", help="lbp (default; scikit-image), mediapipe or insightface (models for research only)"
    )
    made.add_argument("--face-model", type=Path, help="the file of a detector that brings none")
    made.add_argument(
        "--face-embedding", type=Path, metavar="FILE",
        help="with Hallo's weights: whose face it is, 512 numbers (.npy, .safetensors) or a recognition model (.onnx)",
    )  # fmt: skip
    made.add_argument(
        "--text-strength", type=number,
        help="with hallo-text: how strongly the words are heard beside the face, 0 to 1 (default 0.5)",
    )  # fmt: skip
    made.add_argument(
        "--paste-back", action="store_true", help="a video of the portrait's own size, what was drawn put back into it"
    )


def _speech_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--audio-encoder", type=Path, metavar="PATH",
        help="a wav2vec 2.0, transformers folder or file, in place of the bundle's and of its size",
    )  # fmt: skip
    made.add_argument("--level-speech", action="store_true", help="make its loud and quiet parts equally loud")
    made.add_argument(
        "--silence-gate", type=number, metavar="DB",
        help="what is DB below the speech is heard as silence, 10 to 60, such as 35 (default: nothing)",
    )  # fmt: skip


def _convert_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipe", metavar="RECIPE", help="paper-init, hallo-compat, hallo-text or a .toml file")
    made.add_argument("-o", "--output", type=Path, required=True, help="a .safetensors, e.g. tbd_paper.safetensors")
    made.add_argument(
        "--source", type=pair, action="append", default=[], metavar="NAME=PATH",
        help="a source that the recipe names, a file or a folder; repeat it (without any: says which it wants)",
    )  # fmt: skip
    made.add_argument("--dtype", default="fp16", help="fp16 (default), bf16 or fp32")
    made.add_argument("--seed", type=whole, default=0, help="of what starts fresh")
    made.add_argument("--dry-run", action="store_true", help="plan and tell, write nothing")
    made.add_argument("--replace", action="store_true", help="write over an output that was made of other files")


def pair(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH; give one such as sd=v1-5-pruned.safetensors")
    return name, path


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; give one such as 20") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; give one such as 2.5") from None


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers; give some such as 0.3,0.6") from None


# Each command: run (arguments -> dict) and show (dict -> text for people).


def run_generate(arguments: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from .estimate import Pace
    from .memory import keep_memory
    from .pipeline import generate
    from .portrait import parse_size

    options = GenerateOptions(
        portrait=arguments.portrait, speech=arguments.speech, output=arguments.output, emotion=arguments.emotion,
        intensity=arguments.intensity, subject=arguments.subject, prompts=tuple(arguments.prompt),
        coarse=arguments.coarse, fine=arguments.fine, negative=arguments.negative, model=arguments.model,
        steps=arguments.steps, guidance=arguments.guidance, text_scale=arguments.text_scale,
        audio_scale=arguments.audio_scale, blend=arguments.blend, split=arguments.split, seed=arguments.seed,
        size=parse_size(arguments.size) if arguments.size is not None else None,
        device=arguments.device, dtype=arguments.dtype, thinker=arguments.thinker, thinker_url=arguments.thinker_url,
        thinker_model=arguments.thinker_model, thinker_stays=arguments.thinker_stays,
        face=arguments.face, face_margin=arguments.face_margin, face_detector=arguments.face_detector,
        face_model=arguments.face_model, face_embedding=arguments.face_embedding,
        text_strength=arguments.text_strength, paste_back=arguments.paste_back, offload=arguments.offload,
        audio_encoder=arguments.audio_encoder, level_speech=arguments.level_speech, silence_gate=arguments.silence_gate,
    )  # fmt: skip
    keep_memory()
    bar, pace = None, Pace()

    def say(what: object) -> None:
        tqdm.write(str(what), file=sys.stderr)  # past the bar

    def on_step(report: StepReport) -> None:
        nonlocal bar
        if text := pace(report):
            say(text)
        done = report.clip * report.num_steps + report.step
        if bar is None:  # a resumed run begins in the middle, and its time left counts from there
            total = report.num_clips * report.num_steps
            bar = tqdm(desc="draw", unit="step", file=sys.stderr, total=total, initial=done - 1)
        bar.update(done - bar.n)

    try:
        return asdict(generate(options, on_step, say))
    finally:
        if bar is not None:
            bar.close()


def show_generate(result: dict[str, Any]) -> str:
    lines = [f"warning: {text}" for text in result["warnings"]]
    lines += [f"stage {i}: {text}" for i, text in enumerate(result["prompts"]["stages"], start=1)]
    if result["face"]:
        lines.append(f"face: {result['face']['said']}")
    lines.append(
        "{output}: {frames} frames at {fps} fps, {seconds:.2f} s, {width}x{height}, seed {seed}, model {model}; "
        "{wall_seconds:.1f} s, {peak_mb:.0f} MB".format(**result)
    )
    return "\n".join(lines)


def run_prompts(arguments: argparse.Namespace) -> dict[str, Any]:
    from .cot_fa.record import thought_to_json
    from .cot_fa.thinkers import ThinkerOptions, thought_of
    from .portrait import check_portrait, read_portrait

    name, look = None, None
    if (portrait := arguments.portrait) is not None:
        check_portrait(portrait)
        name, look = portrait.name, lambda: read_portrait(portrait)[0]
    thinker = ThinkerOptions(arguments.thinker, arguments.thinker_url, arguments.thinker_model)
    about = (arguments.emotion, arguments.intensity, arguments.subject, arguments.style)
    return thought_to_json(thought_of(thinker, *about, portrait=name, picture=look))


def show_prompts(result: dict[str, Any]) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in result["tokens"].items())
    warnings = [f"warning: {text}" for text in result["warnings"]]
    return "\n".join([*result["steps"], f"Tokens: {counts}", *warnings])


def run_schedule(arguments: argparse.Namespace) -> dict[str, Any]:
    from .progressive import make_schedule

    made = make_schedule(arguments.steps, arguments.stages, arguments.split, arguments.blend, arguments.progress)
    return {
        "steps": made.steps,
        "stages": made.stages,
        "split": list(made.split),
        "blend": made.blend,
        "weights": [list(row) for row in made.weights],
    }


def show_schedule(result: dict[str, Any]) -> str:
    return "\n".join(f"{i:4d}  " + "  ".join(f"{w:.3f}" for w in row) for i, row in enumerate(result["weights"]))


def run_info(arguments: argparse.Namespace) -> dict[str, Any]:
    from .checkpoint.store import read_about, read_config, read_header

    header = read_header(arguments.file)
    tensors = {key: value for key, value in header.items() if key != "__metadata__"}
    counts: dict[str, int] = {}
    for key, value in tensors.items():
        size = 1
        for length in value["shape"]:
            size *= length
        part = key.split(".")[0]
        counts[part] = counts.get(part, 0) + size
    about = {**read_about(arguments.file), "config": read_config(arguments.file).to_dict()}
    return {"file": str(arguments.file), **about, "parameters": counts, "tensors": len(tensors)}


def show_info(result: dict[str, Any]) -> str:
    preliminary = " (preliminary)" if result.get("preliminary") else ""
    defaults = ", ".join(f"{k} {v}" for k, v in result["config"]["defaults"].items())
    lines = [f"{result['file']}: {result.get('name', 'unnamed')}{preliminary}, preset {result['config']['preset']}"]
    lines += [f"  {part}: {count / 1e6:.2f} M parameters" for part, count in result["parameters"].items()]
    lines.append(f"  defaults: {defaults}")
    if "training" in result:
        lines.append("  trained by `tbd train` on the project's own drawn faces: it draws such faces, not photographs")
    if "converted" in result:
        from .checkpoint.report import origin

        lines += [f"  {line}" for line in origin(result["converted"])]
    return "\n".join(lines)


def run_convert(arguments: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from .checkpoint.convert import convert

    names = [name for name, _ in arguments.source]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--source names {', '.join(twice)} twice; give each source once")
    bar = None

    def on_tensor(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(desc="convert", unit="tensor", file=sys.stderr, total=total)
        bar.update(done - bar.n)

    try:
        report = convert(
            arguments.recipe, dict(arguments.source), arguments.output, arguments.dtype, arguments.seed,
            arguments.dry_run, on_tensor, "renew" if arguments.replace else "keep",
        )  # fmt: skip
    finally:
        if bar is not None:
            bar.close()
    return {**report.to_dict(), "written": report.outcome in ("written", "replaced")}


def show_convert(result: dict[str, Any]) -> str:
    from .checkpoint.report import text

    return text(result)


def run_train(arguments: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import replace

    from .evaluation.evaluate import MOST_PEOPLE
    from .memory import keep_memory
    from .training.recipes import RECIPES
    from .training.run import train

    if arguments.recipe not in RECIPES:
        raise InputError(f"unknown recipe {arguments.recipe!r}; choose one of {', '.join(RECIPES)}")
    if not 0 <= arguments.seed <= MOST_SEED:
        raise InputError(f"--seed is {arguments.seed}; give a whole number from 0 to {MOST_SEED}")
    folder = arguments.folder or Path("runs") / arguments.recipe
    shipped = TINY_BUNDLE if arguments.recipe != "smoke" else folder / "tbd_smoke.safetensors"
    output = arguments.output or shipped
    recipes = RECIPES[arguments.recipe](arguments.seed)
    if arguments.cases is not None:
        if not 0 <= arguments.cases <= MOST_PEOPLE:
            raise InputError(f"--cases is {arguments.cases}; give a number of people from 0 to {MOST_PEOPLE}")
        recipes = replace(recipes, judged=replace(recipes.judged, people=arguments.cases))
    keep_memory()
    about = train(folder, output, recipes, arguments.device, start=arguments.start)
    return {"output": str(output), **about}


def show_train(result: dict[str, Any]) -> str:
    training = result["training"]
    spent = ", ".join(f"{k} {v} s" for k, v in training["seconds"].items())
    return f"{result['output']}: {spent}; VAE {training['vae_psnr_db']} dB"


def run_contact_sheet(arguments: argparse.Namespace) -> dict[str, Any]:
    from .video import contact_sheet

    output = arguments.output or arguments.video.with_suffix(".png")
    return {"output": str(contact_sheet(arguments.video, output))}
