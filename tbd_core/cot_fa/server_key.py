"""The key that some servers want: from the environment alone, so that no workflow, command or video holds it. *Ours.*

A workflow names the server and may be a stranger's. So the key goes to servers on this machine, and to one other that
the environment names beside it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import InputError


KEY, KEY_HOST = "TBD_THINKER_KEY", "TBD_THINKER_KEY_HOST"
HIDDEN = "***"


@dataclass(frozen=True, repr=False)
class ServerKey:
    """What one server is sent; nothing shows it."""

    value: str  # blank: nothing is sent
    way_out: str  # of who is refused

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}

    def hide(self, text: bytes) -> bytes:
        """What the server said, without the key: some repeat it."""
        return text.replace(self.value.encode(), HIDDEN.encode()) if self.value else text


NO_KEY = ServerKey("", "")


def key_for(host: str, is_here: bool) -> ServerKey:
    """The key for the server at `host`, which runs on this machine or not. InputError for what is no key; it does not
    show it."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        return ServerKey("", f"set the environment variable {KEY} to the server's key, and start again")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"{KEY} has {len(key)} characters, not all of them printable ASCII; set it to the key alone")
    if not is_here and os.environ.get(KEY_HOST, "").strip().lower() != host:
        return ServerKey("", f"{KEY} goes to this machine's servers alone; set {KEY_HOST}={host} too, and start again")
    return ServerKey(key, f"the key in {KEY} was sent, and it is not the server's")
