"""A thinker behind any server that speaks OpenAI's chat completions: Ollama, vLLM, LM Studio, llama.cpp … *Ours.*

The answer is streamed (server-sent events), so that a cancel is heard between two tokens and a server that dies is
noticed. A thread does the waiting, name look-up and connecting included; whoever asks looks up every quarter of a
second and leaves when a limit is passed. Proxies of the environment are not used and redirections are not followed: the
portrait and the key (`server_key.py`) go to the address that was given and nowhere else.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import InputError
from .answers import MOST_CHARACTERS, quote
from .asking import Check, Message, UnansweredError
from .server_key import NO_KEY, ServerKey, key_for


if TYPE_CHECKING:
    from PIL import Image

DEFAULT_URL = "http://127.0.0.1:11434/v1"  # Ollama's
MOST_TOKENS = 2048  # of one answer, a model's thinking aloud included
MOST_BYTES = 4 * 2**20  # of one answer with all that a stream wraps around it
PIECE = 2**16  # bytes read at once
LOOK_UP = 0.25  # seconds between two looks at cancel and limits
JPEG_QUALITY = 90
NOT_HERE = (401, 403, 404, 405)  # HTTP: the next question would get the same; 3xx too


@dataclass(frozen=True)
class Limits:
    """Seconds."""

    connect: float = 5.0  # name look-up included
    token: float = 120.0  # without anything new; a model may have to be loaded before the first one
    total: float = 300.0  # for one answer


class Server:
    """Model `model` of the server at `url`, e.g. http://127.0.0.1:11434/v1. InputError when either cannot be one."""

    def __init__(self, url: str, model: str, limits: Limits | None = None) -> None:
        self.url, self.model, self.limits = check_url(url), check_model(model), limits or Limits()
        self.host = urlsplit(self.url).hostname or ""
        self.name = f"{self.model} at {self.host}"
        self.identity = ("server", self.url, self.model)
        self.key = key_for(self.host, self.is_here)

    @property
    def is_here(self) -> bool:
        """Whether the server runs on this machine, as far as its name tells."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"

    def answer(self, messages: Sequence[Message], picture: Image.Image | None, check: Check) -> str:
        """As asking.Thinker's."""
        stream = Stream(self.key)
        for piece in self._pieces(json.dumps(self._request(messages, picture)).encode(), check):
            stream.add(piece)
            if len(stream.text) > MOST_CHARACTERS:
                return stream.text
        return stream.finish()

    def close(self) -> None:
        """Nothing is held between two questions."""

    def _request(self, messages: Sequence[Message], picture: Image.Image | None) -> dict[str, Any]:
        said: list[dict[str, Any]] = [{"role": message.role, "content": message.text} for message in messages]
        if picture is not None:
            text = {"type": "text", "text": said[0]["content"]}
            said[0]["content"] = [{"type": "image_url", "image_url": {"url": data_url(picture)}}, text]
        return {
            "model": self.model,
            "messages": said,
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
            "stream": True,
        }

    def _pieces(self, body: bytes, check: Check) -> Iterator[bytes]:
        """The bytes of the answer as they come. Raises UnansweredError, and what `check` raises."""
        call = Call(self.url, body, self.limits, self.key)
        began = last = time.monotonic()
        received = 0
        try:
            while True:
                check()
                self._check_time(call, began, last)
                try:
                    piece = call.pieces.get(timeout=LOOK_UP)
                except queue.Empty:
                    continue
                if isinstance(piece, Exception):
                    raise piece
                if piece is None:
                    return
                received += len(piece)
                if received > MOST_BYTES:
                    raise UnansweredError(f"{self.host} sent more than {MOST_BYTES / 2**20:g} MiB for one answer")
                if piece.strip() and not piece.startswith(b":"):  # a comment only says that the server lives
                    last = time.monotonic()
                yield piece
        finally:
            call.hang_up()

    def _check_time(self, call: Call, began: float, last: float) -> None:
        now, limits = time.monotonic(), self.limits
        if not call.connected.is_set() and now - began > limits.connect:
            raise UnansweredError(f"{self.url} did not accept a connection within {limits.connect:g} s", hopeless=True)
        if now - last > limits.token:
            raise UnansweredError(f"{self.host} sent nothing for {limits.token:g} s", hopeless=True)
        if now - began > limits.total:
            raise UnansweredError(f"{self.host} was not done after {limits.total:g} s", hopeless=True)


class Call:
    """One request in a thread of its own: `pieces` gets bytes, then None at the end, or an UnansweredError."""

    def __init__(self, url: str, body: bytes, limits: Limits, key: ServerKey) -> None:
        self.url, self.body, self.limits, self.key = url, body, limits, key
        self.pieces: queue.Queue[bytes | None | UnansweredError] = queue.Queue(maxsize=64)
        self.connected, self.left = threading.Event(), threading.Event()
        address = urlsplit(url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        self.host, self.path = address.hostname or "", address.path
        port = address.port or kind.default_port  # said in any case, else it is looked for in an IPv6 address
        self.connection = kind(self.host, port, timeout=limits.connect)
        threading.Thread(target=self._run, name="tbd-thinker", daemon=True).start()

    def hang_up(self) -> None:
        """End it, wherever it is; a read that waits wakes up."""
        self.left.set()
        if (sock := self.connection.sock) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._talk()
            self._put(None)
        except UnansweredError as error:
            self._put(error)
        # ValueError: what a server sent is no HTTP; AttributeError: hung up while it was read
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if self.connected.is_set():
                self._put(UnansweredError(f"{self.host} broke off ({quote(why)})"))
            else:
                self._put(
                    UnansweredError(f"{self.url} cannot be reached ({quote(why)}); is it running?", hopeless=True)
                )
        finally:
            self.connection.close()

    def _talk(self) -> None:
        self.connection.connect()
        self.connected.set()
        if self.left.is_set():
            return
        self.connection.sock.settimeout(self.limits.token + 1)  # so that the thread ends by itself, too
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        self.connection.request("POST", self.path, self.body, headers | self.key.headers())
        response = self.connection.getresponse()
        if response.status != 200:
            raise refusal(self.host, response.status, response.read(PIECE), self.key)
        while not self.left.is_set() and (piece := response.read1(PIECE)):
            self._put(piece)

    def _put(self, piece: bytes | None | UnansweredError) -> None:
        while not self.left.is_set():
            with suppress(queue.Full):
                return self.pieces.put(piece, timeout=LOOK_UP)


class Stream:
    """Bytes of a streamed answer, or of one in a single object → its text so far."""

    def __init__(self, key: ServerKey = NO_KEY) -> None:
        self.key = key
        self.text, self.rest, self.whole = "", b"", b""  # `rest`: of a line, `whole`: what is no event
        self.done = False

    def add(self, piece: bytes) -> None:
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            self._line(line.strip())

    def finish(self) -> str:
        """The whole text. Raises UnansweredError when the end is missing."""
        self._line(self.rest.strip())
        if self.whole and not self.done:
            self._event(self.whole, "message")
        if not self.done:
            raise UnansweredError(f"the server broke off after {len(self.text)} characters")
        return self.text

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                self.done = True
            else:
                self._event(data, "delta")
        elif line and not line.startswith((b":", b"event:", b"id:", b"retry:")):
            self.whole += line

    def _event(self, data: bytes, part: str) -> None:
        data = self.key.hide(data)
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            shown = quote(data[:200].decode("utf-8", "replace"))
            raise UnansweredError(
                f"the server sent what is no JSON after {len(self.text)} characters: {shown}"
            ) from None
        if not isinstance(event, dict):
            return
        if event.get("error"):
            raise UnansweredError(f"the server reports {error_text(event)}")
        choices = event.get("choices")
        for choice in choices[:1] if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                said = choice.get(part)
                text = said.get("content") if isinstance(said, dict) else None
                self.text += text if isinstance(text, str) else ""
                self.done |= bool(choice.get("finish_reason")) or part == "message"


def refusal(host: str, status: int, body: bytes, key: ServerKey) -> UnansweredError:
    text = key.hide(body).decode("utf-8", "replace")
    try:
        said = error_text(json.loads(text))
    except (ValueError, RecursionError):
        said = quote(" ".join(text.split()))
    said += f"; {key.way_out}" if status == 401 else ""
    return UnansweredError(f"{host} answered HTTP {status}: {said}", hopeless=status in NOT_HERE or 300 <= status < 400)


def error_text(event: Any) -> str:
    """What an error object says, in OpenAI's form or a plainer one."""
    error = event.get("error", event) if isinstance(event, dict) else event
    return quote(error.get("message", error) if isinstance(error, dict) else error, 200)


def data_url(picture: Image.Image) -> str:
    """An RGB picture as JPEG inside a URL."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def check_url(url: str) -> str:
    """The address of a server's chat completions, from that or from its base. Raises InputError."""
    wanted = f"give the base address of a server, such as {DEFAULT_URL}"
    url = url.strip()
    try:
        address = urlsplit(url)
        port = address.port
    except ValueError as error:
        raise InputError(f"thinker-url is {quote(url)} ({error}); {wanted}") from error
    if address.scheme not in ("http", "https") or not address.hostname or not url.isascii() or not url.isprintable():
        raise InputError(f"thinker-url is {quote(url)}, no http or https address; {wanted}")
    if address.username is not None or address.query or address.fragment or " " in url or port == 0:
        raise InputError(f"thinker-url has more than host, port and path; {wanted}")  # not shown: may be a password
    path = address.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return f"{address.scheme}://{address.netloc}{path}"


def check_model(model: str) -> str:
    """A model's name at a server. Raises InputError."""
    model = model.strip()
    if not model:
        raise InputError(
            "thinker-model is blank (0 characters); give the model's name at the server, such as qwen2.5vl:7b"
        )
    if len(model) > 200 or not model.isprintable():
        raise InputError(f"thinker-model is {quote(model)}; a name has at most 200 printable characters")
    return model
