"""Real servers on 127.0.0.1 that answer as thinkers do, and how they are asked."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tbd_core.cot_fa.asking import Message, UnansweredError
from tbd_core.cot_fa.server import Limits, Server


PATIENT = Limits(60, 300, 300)  # where time is not what is tested: a loaded machine may stand still for long
QUICK = Limits(connect=2.0, token=0.8, total=2.0)
QUESTION = [Message("user", "Who is seen?")]
ANSWER = '{"subject": "a man", "face": "at rest"}'


def event(**fields) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def token(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"delta": {"content": text}, "finish_reason": finish}])


def events(text: str) -> list[bytes]:
    """As Ollama and vLLM stream: a role first, then token by token, a reason, [DONE]."""
    role = event(choices=[{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    words = [token(text[i : i + 5]) for i in range(0, len(text), 5)]
    return [role, *words, token("", "stop"), b"data: [DONE]\n\n"]


class Host:
    """A server whose `reply(handler, request)` does what a test wants; `requests` are the bodies that came, `keys` what
    stood in Authorization."""

    def __init__(self):
        self.requests, self.paths, self.keys, self.reply, self.gone = [], [], [], None, threading.Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                host.requests.append(request)
                host.paths.append(self.path)
                host.keys.append(self.headers["Authorization"])
                try:
                    host.reply(self, request)
                except OSError:  # the asker hung up
                    host.gone.set()
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def begin(handler, kind="text/event-stream", status=200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Connection", "close")
    handler.end_headers()


def stream(*pieces, pause=0.0):
    def reply(handler, _request):
        begin(handler)
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause)

    return reply


def ask_once(url, limits=PATIENT, picture=None, check=lambda: None) -> str:
    return Server(url, "seer", limits).answer(QUESTION, picture, check)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tbd-thinker"]


def assert_no_thread_stays() -> None:
    ends = time.monotonic() + 60
    while threads() and time.monotonic() < ends:
        time.sleep(0.02)
    assert threads() == []


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def refused(url, limits=PATIENT, **given) -> UnansweredError:
    with pytest.raises(UnansweredError) as caught:
        ask_once(url, limits, **given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert_no_thread_stays()
    return caught.value
