"""Who thinks, by name: `rules`, `server` or `vlm` → a Thought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..config import GenerateOptions
from ..errors import InputError
from ..flow import Thought
from .think import think


if TYPE_CHECKING:
    from PIL import Image

    from .asking import Check, Thinker

THINKERS = ("rules", "server", "vlm")


@dataclass(frozen=True)
class ThinkerOptions:
    """Who is asked, and where."""

    kind: str = "rules"  # of THINKERS
    url: str | None = None  # server: its base address; None: Ollama's on this machine
    model: str | None = None  # server: the model's name there; vlm: its folder
    device: str = "auto"  # vlm
    dtype: str = "auto"  # vlm
    stay: bool = False  # vlm: keep it loaded for the next thought of this process


def asked_for(options: GenerateOptions) -> ThinkerOptions:
    """What one generation says of its thinker; a model computes where the video does, in the type that suits it."""
    name, url, model = options.thinker, options.thinker_url, options.thinker_model
    return ThinkerOptions(name, url, model, options.device, stay=options.thinker_stays)


def check_thinker(options: ThinkerOptions) -> None:
    """InputError for a name that is unknown, and for what belongs to another thinker. Loads and asks nothing."""
    if options.kind not in THINKERS:
        raise InputError(f"thinker is {options.kind!r}; choose {', '.join(THINKERS)}")
    if options.url and options.kind != "server":
        raise InputError(f"thinker-url is given, but the thinker is {options.kind}; leave it out, or choose server")
    if options.model and options.kind == "rules":
        raise InputError("thinker-model is given, but the thinker is rules; leave it out, or choose server or vlm")
    if options.kind != "rules":
        make_thinker(options)


def make_thinker(options: ThinkerOptions, make_room: Callable[[int], None] | None = None) -> Thinker:
    """The server or the model, not yet asked or loaded (`make_room` as in VLM). Raises InputError."""
    if options.kind == "server":
        from .server import DEFAULT_URL, Server

        return Server(options.url or DEFAULT_URL, options.model or "")
    from .vlm import VLM

    return VLM(options.model or "", options.device, options.dtype, options.stay, make_room)


def thought_of(
    options: ThinkerOptions,
    emotion: str,
    intensity: str = "Moderate",
    subject: str | None = None,
    style: str = "clip",
    portrait: str | None = None,
    picture: Callable[[], Image.Image] | None = None,
    check: Check = lambda: None,
    make_room: Callable[[int], None] | None = None,
) -> Thought:
    """As `think`, by whom `options` name; a model is freed before this returns.

    picture    gives the portrait; it is not called for the rules, which never look at it
    check      may raise to cancel
    make_room  called with a number of bytes just before a model is loaded
    Raises InputError.
    """
    check_thinker(options)
    if options.kind == "rules":
        return think(emotion, intensity, subject, style, portrait)
    thinker = make_thinker(options, make_room)
    try:
        from .asking import ask  # of no use to the rules, and ComfyUI's start waits for what is imported

        thought = ask(
            thinker, emotion, intensity, subject, style, portrait, None if picture is None else picture(), check
        )
    finally:
        thinker.close()
    return replace(thought, warnings=(*sent_away(thinker, picture is not None), *thought.warnings))


def sent_away(thinker: Thinker, with_picture: bool) -> tuple[str, ...]:
    """A warning when the portrait may have left this machine."""
    if not with_picture or getattr(thinker, "is_here", True):
        return ()
    return (f"the portrait is shown to another machine: {thinker.name}",)
