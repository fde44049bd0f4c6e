"""The scores in a bundle's account of itself, `TINY.md` beside it. `tbd train` writes the account; every proof writes
its scores anew, so that it and the proof tell of the same drawings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..facs.emotions import INTENSITIES
from ..files import atomic, write_error
from .proof_text import goal_rows


if TYPE_CHECKING:
    from PIL import Image

ACCOUNT, PICTURE = "TINY.md", "emotions.jpg"
TITLE = "## Scores"
UNMEASURED = f"{TITLE}\nNot measured yet: `tbd evaluate --proof FOLDER` writes them here.\n"


def scores_text(details: dict[str, Any], command: str) -> str:
    """The section; `details` as `proof_text.goal_rows` wants them, measured by `command`."""
    return f"""{TITLE}
Measured by `{command}`:

| what | goal | measured | | cases | on true renders |
|---|---|---|---|---|---|
{chr(10).join(goal_rows(details))}

docs/proof.md shows more. Below: of two people it never saw, seven emotions at {", ".join(INTENSITIES)}, silent speech;
the renderer's truth above, the model's drawing below.

![truth and drawn]({PICTURE})
"""


def write_scores(bundle: Path, details: dict[str, Any], command: str, sheet: Image.Image) -> bool:
    """Put scores and picture into the account beside `bundle`; False when it has none. InputError when the disk does
    not take them."""
    account = bundle.with_name(ACCOUNT)
    if not account.is_file():
        return False
    before, title, _ = account.read_text("utf-8").partition(TITLE)
    if not title:
        return False
    try:
        with atomic(bundle.with_name(PICTURE)) as partial:
            sheet.save(partial, format="JPEG", quality=85, optimize=True)
        with atomic(account) as partial:
            partial.write_text(before + scores_text(details, command), encoding="utf-8")
    except OSError as error:
        raise write_error(account, error) from error
    return True
