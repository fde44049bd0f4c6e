"""A thinker in a folder: any image-text-to-text model of transformers (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, LLaVA …).

*Ours.* Nothing is downloaded, no code of the folder is run (`trust_remote_code=False`) and only safetensors are read.
It is loaded with the first question and freed after the last one, unless told to stay.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import check_device, pick_device, pick_dtype
from ..errors import InputError, needed_packages
from ..memory import ran_out
from .answers import quote
from .asking import Check, Message, UnansweredError


if TYPE_CHECKING:
    from PIL import Image

MOST_TOKENS = 1024  # of one answer; the longest that holds needs about 400
ROOM_TO_THINK = 2 * 2**30  # bytes beside the weights: a picture's tokens and the answer's (a guess on the safe side)
LOCAL = {"local_files_only": True, "trust_remote_code": False}
# What transformers, tokenizers and safetensors raise on a folder that is damaged or of another kind.
LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
TAKE_ANOTHER = "give the folder of an image-text-to-text model, such as Qwen2.5-VL, with config.json and safetensors"

_staying: dict[tuple[str, ...], tuple[Any, Any]] = {}  # (processor, model) by identity; at most one


class VLM:
    """The model in `folder`. InputError when there is none that can be asked; the networks are not loaded for that.

    device, dtype  as devices.pick_device and pick_dtype
    stay           keep it in memory after `close`, for the next thought of this process
    make_room      called with the bytes that it will about take (`room`) just before it is loaded
    """

    def __init__(
        self, folder: str | Path, device: str = "auto", dtype: str = "auto", stay: bool = False,
        make_room: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.device, self.dtype, self.stay = check_folder(folder), device, dtype, stay
        self.make_room = make_room
        check_device(device)
        self.name = self.folder.name
        files = sorted(path for kind in ("*.json", "*.safetensors") for path in self.folder.glob(kind))
        changed = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
        self.identity = ("vlm", str(self.folder.resolve()), device, dtype, *changed)
        self._loaded: tuple[Any, Any] | None = None

    def answer(self, messages: Sequence[Message], picture: Image.Image | None, check: Check) -> str:
        """As asking.Thinker's; greedy. `check` is called before every token. Whatever goes wrong with the model is an
        UnansweredError: libraries and folders fail in kinds that nobody has listed, and none may lose the run."""
        import torch

        check()
        try:
            processor, model = self._load()
        except Exception as error:
            raise UnansweredError(self._unloaded(error), hopeless=True) from error
        check()
        stop, criteria = cancelling(check)
        try:
            inputs = prepare(processor, messages, picture).to(model.device, model.dtype)  # whole numbers keep theirs
            with torch.inference_mode():
                made = model.generate(
                    **inputs, max_new_tokens=MOST_TOKENS, do_sample=False, num_beams=1, stopping_criteria=criteria
                )
            new = made[0, inputs["input_ids"].shape[1] :]
            return processor.tokenizer.decode(new, skip_special_tokens=True)
        except Exception as error:
            if error is stop.raised:  # a cancel is no failure of the model
                raise
            raise UnansweredError(f"it failed with {shown(error)}", hopeless=fails_again(error)) from error

    def close(self) -> None:
        """Free it, and whatever stayed before it; unless it was told to stay."""
        self._loaded = None
        if self.stay:
            return
        _staying.clear()
        free()

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            if self.identity not in _staying:
                if _staying:  # two would stand side by side, and room is made for one
                    _staying.clear()
                    free()
                if self.make_room:
                    self.make_room(room(self.folder))
            self._loaded = _staying.get(self.identity) or load(self.folder, self.device, self.dtype)
            if self.stay:
                _staying[self.identity] = self._loaded
        return self._loaded

    def _unloaded(self, error: Exception) -> str:
        if ran_out(error):
            return f"it does not fit into the memory of {self.device}"
        return str(error) if isinstance(error, InputError) else f"it cannot be loaded ({shown(error)})"


def shown(error: Exception) -> str:
    return f"{type(error).__name__}: {quote(next(iter(str(error).splitlines()), ''), 160)}"


def fails_again(error: Exception) -> bool:
    """Whether every other question would meet the same: memory, a package, a class or the chat template."""
    from jinja2 import TemplateError  # torch brings it

    return ran_out(error) or isinstance(error, (ImportError, AttributeError, TemplateError))


def room(folder: Path) -> int:
    """Bytes that the model in `folder` will about take: its weights as they are stored, and what it computes with."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) + ROOM_TO_THINK


def free() -> None:
    """Give back what nobody holds any more, on an accelerator too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


class Stop:
    """What `check` raised inside the model, so that it can be told from the model's own errors."""

    raised: BaseException | None = None


def cancelling(check: Check) -> tuple[Stop, Any]:
    """(what stopped it, transformers' criteria that call `check` with every token)."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    stop = Stop()

    class EveryToken(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # pyright: ignore
            try:
                check()
            except BaseException as error:
                stop.raised = error
                raise
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    return stop, StoppingCriteriaList([EveryToken()])


def prepare(processor: Any, messages: Sequence[Message], picture: Image.Image | None) -> Any:
    """Messages → the model's inputs, by its own chat template; the picture stands before the first message's words."""
    talk = [{"role": m.role, "content": [{"type": "text", "text": m.text}]} for m in messages]
    if picture is not None:
        talk[0]["content"].insert(0, {"type": "image"})
    text = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    pictures = {} if picture is None else {"images": [picture]}
    return processor(text=[text], **pictures, return_tensors="pt")


def load(folder: Path, device: str, dtype: str) -> tuple[Any, Any]:
    """(processor, model) from `folder`, ready to be asked. Raises InputError; a lack of memory stays what it is."""
    with needed_packages():
        import transformers
        from safetensors import SafetensorError
        from transformers import AutoModelForImageTextToText, AutoProcessor

    place = pick_device(device)
    kind = "dtype" if _new_name(transformers) else "torch_dtype"
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, **LOCAL)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, **LOCAL, use_safetensors=True, output_loading_info=True, **{kind: pick_dtype(dtype, place)}
        )
        model, found = loaded
    except ImportError as error:
        line = " ".join(str(error).split())
        raise InputError(f"{folder} needs a package that is not installed ({line[:200]}); install it") from error
    except (*LOAD_ERRORS, SafetensorError) as error:
        if ran_out(error):
            raise
        line = " ".join(str(error).split())
        raise InputError(
            f"{folder} cannot be loaded ({type(error).__name__}: {line[:200]}); {TAKE_ANOTHER}, whole and unchanged"
        ) from error
    if lost := sorted(found["missing_keys"]):  # transformers would draw them at random
        raise InputError(f"{folder} lacks {len(lost)} weights, such as {lost[0]}; {TAKE_ANOTHER}, whole and unchanged")
    if getattr(processor, "chat_template", None) is None or not hasattr(processor, "tokenizer"):
        raise InputError(f"{folder} has 0 chat templates; {TAKE_ANOTHER}, of the kind that is called Instruct or Chat")
    plain = model.generation_config
    plain.temperature = plain.top_p = plain.top_k = None  # greedy: else transformers warns of each
    return processor, model.to(place).eval()


def _new_name(transformers: Any) -> bool:
    """Whether `torch_dtype` is called `dtype` already."""
    major, minor = map(int, transformers.__version__.split(".")[:2])
    return (major, minor) >= (4, 56)


def check_folder(folder: str | Path) -> Path:
    """The folder of a model that sees and speaks, by its config.json alone. Raises InputError."""
    folder = Path(folder).expanduser()
    if not str(folder).strip(" ."):
        raise InputError(f"thinker-model is blank (0 characters); {TAKE_ANOTHER}")
    try:
        if not folder.is_dir():
            raise InputError(f"thinker-model {folder} is not a folder; {TAKE_ANOTHER}")
        file = folder / "config.json"
        if not file.is_file():
            raise InputError(f"{folder} has no config.json; {TAKE_ANOTHER}")
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: config.json cannot be read ({quote(str(error), 160)}); {TAKE_ANOTHER}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in known_kinds():
        raise InputError(f"{folder} is of the kind {quote(kind)}, which does not both see and speak; {TAKE_ANOTHER}")
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"{folder} has 0 files *.safetensors; {TAKE_ANOTHER}")
    return folder


def known_kinds() -> set[str]:
    """`model_type`s that the installed transformers knows as image-text-to-text."""
    with needed_packages():
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
