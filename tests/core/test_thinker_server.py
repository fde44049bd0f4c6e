"""A thinker behind HTTP: real servers on 127.0.0.1 that answer, refuse, dawdle, die, and talk without end."""

import base64
import io
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
from PIL import Image

from tbd_core.cli import main
from tbd_core.config import GenerateOptions
from tbd_core.cot_fa.answers import MOST_CHARACTERS
from tbd_core.cot_fa.asking import Memory, Message, UnansweredError, ask
from tbd_core.cot_fa.server import Limits, Server, check_url
from tbd_core.cot_fa.think import think
from tbd_core.cot_fa.thinkers import ThinkerOptions, thought_of
from tbd_core.errors import InputError
from tbd_core.pipeline import plan


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
    """A server whose `reply(handler, request)` does what a test wants; `requests` are the bodies that came."""

    def __init__(self):
        self.requests, self.paths, self.reply, self.gone = [], [], None, threading.Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                host.requests.append(request)
                host.paths.append(self.path)
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


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


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


def test_a_streamed_answer_is_put_together(host):
    host.reply = stream(*events(ANSWER))
    assert ask_once(host.url) == ANSWER
    assert host.paths == ["/v1/chat/completions"]
    sent = host.requests[0]
    assert (sent["model"], sent["temperature"], sent["stream"]) == ("seer", 0, True)
    assert sent["messages"] == [{"role": "user", "content": "Who is seen?"}] and sent["max_tokens"] == 2048
    assert_no_thread_stays()


@pytest.mark.parametrize("size", [1, 7])
def test_events_may_be_cut_anywhere_and_hold_comments_and_carriage_returns(host, size):
    whole = b": hello\r\n\r\n" + b"".join(events("Blick: würdig")).replace(b"\n", b"\r\n") + b"event: end\r\n"
    host.reply = stream(*(whole[i : i + size] for i in range(0, len(whole), size)))
    assert ask_once(host.url, PATIENT) == "Blick: würdig"


def test_a_chunked_stream_and_one_without_done_are_read_too(host):
    def reply(handler, _request):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in (token("one "), token("two", "stop")):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    host.reply = reply
    assert ask_once(host.url) == "one two"


def test_a_server_that_does_not_stream_is_understood(host):
    def reply(handler, _request):
        begin(handler, "application/json")
        handler.wfile.write(json.dumps({"choices": [{"message": {"content": ANSWER}}]}, indent=1).encode())

    host.reply = reply
    assert ask_once(host.url) == ANSWER


def test_the_picture_goes_as_a_data_url_before_the_words(host):
    host.reply = stream(*events("seen"))
    ask_once(host.url, picture=Image.new("RGB", (40, 30), "teal"))
    shown, words = host.requests[0]["messages"][0]["content"]
    assert words == {"type": "text", "text": "Who is seen?"} and shown["type"] == "image_url"
    head, _, data = shown["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 30)


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


def test_a_port_where_nobody_listens_is_hopeless_at_once():
    error = refused(f"http://127.0.0.1:{unused_port()}/v1")
    assert "cannot be reached" in str(error) and error.hopeless


def test_a_server_that_never_accepts_is_left_after_the_limit():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]  # the backlog: the next one is left hanging
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        error = refused(f"http://127.0.0.1:{port}/v1", Limits(0.5, 0.6, 1.0))
        for one in waiting:
            one.close()
    assert error.hopeless


@pytest.mark.parametrize("before", [(), (token('{"subj'),)], ids=["from the start", "mid-answer"])
def test_silence_ends_after_the_limit_between_tokens(host, before):
    release = threading.Event()

    def reply(handler, _request):
        begin(handler)
        handler.wfile.writelines(before)
        handler.wfile.flush()
        release.wait(100)

    host.reply = reply
    error = refused(host.url, QUICK)
    release.set()
    assert "sent nothing for 0.8 s" in str(error) and error.hopeless


def test_a_server_that_only_says_that_it_lives_is_silent_too(host):
    host.reply = stream(*[b": still here\n\n"] * 100, pause=0.1)
    assert "sent nothing for 0.8 s" in str(refused(host.url, QUICK))


def test_one_token_at_a_time_for_ever_ends_after_the_limit_in_all(host):
    host.reply = stream(*[token("a")] * 1000, pause=0.1)
    error = refused(host.url, QUICK)
    assert "was not done after 2 s" in str(error) and error.hopeless
    assert host.gone.wait(60), "the server was not hung up on"


def test_a_server_that_dies_mid_answer_is_noticed_and_not_hopeless(host):
    host.reply = stream(token('{"subject": '), token('"a m'))
    error = refused(host.url)
    assert "broke off after 16 characters" in str(error) and not error.hopeless


def test_a_chunk_that_is_cut_off_is_noticed(host):
    def reply(handler, _request):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\n" + token("half")[:20])

    host.reply = reply
    assert "broke off" in str(refused(host.url))


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: zz\r\n\r\nxx"])
def test_what_is_no_http_server_is_noticed(raw):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            one, _ = listening.accept()
            with one:
                one.recv(65536)
                one.sendall(raw)

        threading.Thread(target=serve, daemon=True).start()
        error = refused(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
    assert "broke off" in str(error) or "no JSON" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "message", "hopeless"),
    [
        (404, b'{"error": {"message": "model \\"seer\\" not found"}}', "HTTP 404: 'model \"seer\" not found'", True),
        (400, b'{"error": "this model cannot\\nsee"}', r"HTTP 400: 'this model cannot\\nsee'", False),
        (500, b"<html>" + b"x" * 100_000, "HTTP 500: ' html xxx", False),
        (503, b"\xff\xfe", "HTTP 503", False),
        (302, b"", "HTTP 302", True),
    ],
)
def test_an_http_error_is_quoted_short_and_redirections_are_not_followed(host, status, body, message, hopeless):
    def reply(handler, _request):
        begin(handler, "application/json", status)
        handler.wfile.write(body)

    host.reply = reply
    error = refused(host.url)
    assert message.replace("\\\\", "\\") in str(error).replace("\\\\", "\\") and error.hopeless == hopeless


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (b"data: {half\n\n", r"sent what is no JSON after 0 characters: '{half'"),
        (event(error={"message": "out of memory"}), "the server reports 'out of memory'"),
        (b"data: " + b"[" * 50_000 + b"\n\n", "no JSON"),
        (b"Hello!\n", "no JSON"),
        (event(choices="none"), "broke off after 0 characters"),
    ],
)
def test_a_stream_of_something_else_is_noticed(host, piece, message):
    host.reply = stream(piece)
    assert message in str(refused(host.url))


def test_two_hundred_thousand_characters_are_not_read_to_their_end(host):
    host.reply = stream(*[token("x" * 1000)] * 200, pause=0.005)
    text = ask_once(host.url, PATIENT)
    assert MOST_CHARACTERS < len(text) <= MOST_CHARACTERS + 1000
    assert_no_thread_stays()


def test_a_flood_that_never_becomes_an_answer_ends_at_its_limit(host):
    host.reply = stream(*[event(pad="x" * 60_000)] * 200)
    assert "sent more than 4 MiB for one answer" in str(refused(host.url))


def test_a_cancel_is_heard_while_the_server_is_silent(host):
    class CancelledError(Exception):
        pass

    release, began = threading.Event(), time.monotonic()
    host.reply = lambda handler, _request: release.wait(100)

    def check():
        if time.monotonic() - began > 0.3:
            raise CancelledError

    with pytest.raises(CancelledError):
        ask_once(host.url, check=check)
    assert_no_thread_stays()
    release.set()


def test_four_steps_over_http_with_one_repaired(host):
    plan = think("happy", "Mild", "a man")
    good = {
        "Step 1": ANSWER,
        "Step 2": json.dumps({"units": [{"number": u.number, "level": u.level} for u in plan.action_units]}),
        "Step 3": "The muscles are strong.",
        "Step 4": json.dumps({name: getattr(plan.prompts, name) for name in ("coarse", "fine", "negative")}),
    }
    rows = [{"muscle": m.muscle, "units": m.units, "movement": m.movement} for m in plan.muscle_movements]

    def reply(handler, request):
        messages = request["messages"]
        first = messages[0]["content"]
        question = first if isinstance(first, str) else first[1]["text"]
        text = next(answer for name, answer in good.items() if name in question)
        if "there is no JSON object in the answer" in messages[-1]["content"]:
            text = json.dumps({"muscles": rows})
        stream(*events(text))(handler, request)

    host.reply = reply
    picture = Image.new("RGB", (64, 64))
    server = Server(host.url, "seer", PATIENT)
    thought = ask(server, "happy", "Mild", picture=picture, memory=Memory())
    assert thought.warnings == () and len(host.requests) == 5
    assert thought.face.by == "seer at 127.0.0.1" and thought.prompts.coarse == plan.prompts.coarse


@pytest.mark.parametrize(
    ("reply", "warnings", "asked"),
    [
        (stream(*events("No idea, sorry.")), 4, 8),
        (stream(*events("")), 4, 8),
        (stream(*events('{"units": [{"number": 99, "level": "C"}], "subject": "/tmp"}')), 4, 8),
        (stream(*events("y" * 20_000)), 4, 8),
        (stream(token("{")), 4, 4),
        (lambda handler, _: begin(handler, status=404), 1, 1),
    ],
    ids=["prose", "nothing", "invented units", "too long", "dies mid-answer", "no such model"],
)
def test_whatever_a_server_does_the_run_is_not_lost(host, reply, warnings, asked):
    host.reply = reply
    server = Server(host.url, "seer", PATIENT)
    thought = ask(server, "sad", "Mild", picture=Image.new("RGB", (64, 64)), memory=Memory())
    rules = think("sad", "Mild")
    assert (thought.action_units, thought.prompts) == (rules.action_units, rules.prompts)
    assert len(host.requests) == asked and len(thought.warnings) == warnings
    assert all("by the rules" in text and "\n" not in text for text in thought.warnings)


def test_a_server_on_another_machine_is_said_to_see_the_portrait(monkeypatch):
    def answer(self, messages, picture, check):
        raise UnansweredError("not in this test", hopeless=True)

    monkeypatch.setattr(Server, "answer", answer)
    for url, away in (("http://gpu.example:8000", True), ("http://[::1]:8000", False), ("http://localhost", False)):
        options = ThinkerOptions("server", url, "seer")
        thought = thought_of(options, "happy", picture=lambda: Image.new("RGB", (64, 64)))
        assert any("the portrait is shown to another machine" in text for text in thought.warnings) == away


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
        (" http://box:1234/v1/ ", "http://box:1234/v1/chat/completions"),
        ("https://box/api/v2", "https://box/api/v2/chat/completions"),
        ("http://[::1]:8000/v1/chat/completions", "http://[::1]:8000/v1/chat/completions"),
    ],
)
def test_the_base_address_is_enough(given, used):
    assert check_url(given) == used


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "thinker-url is '', no http or https address"),
        ("127.0.0.1:11434", "no http or https address"),
        ("file:///etc/passwd", "thinker-url is 'file:///etc/passwd', no http"),
        ("http://box:99999", "Port out of range 0-65535"),
        ("http://box:port", "thinker-url is 'http://box:port'"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://me:secret@box/v1", "more than host, port and path"),
        ("http://box/v1?key=1", "more than host, port and path"),
        ("http://b\u00f6x/v1", "no http or https address"),
        ("http://box/v1\r\nHost: other", "no http or https address|more than host"),
    ],
)
def test_what_is_no_address_is_refused_and_no_password_is_shown(given, message):
    with pytest.raises(InputError, match=message) as caught:
        Server(given, "seer")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("model", "message"), [(" ", "blank"), ("x" * 201, "200"), ("a\x00b", "printable")])
def test_a_models_name_is_checked(model, message):
    with pytest.raises(InputError, match=message):
        Server("http://box", model)


def command(capsys, *arguments) -> tuple[int, dict, str]:
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out or "{}"), captured.err


@pytest.fixture
def files(tmp_path):
    Image.new("RGB", (96, 80), "tan").save(tmp_path / "face.png")
    soundfile.write(tmp_path / "speech.wav", 0.1 * np.ones(8_000), 16_000)
    return tmp_path


def test_the_prompts_command_lets_the_server_see_the_portrait(host, files, capsys):
    host.reply = stream(*events('{"subject": "a man in a brown hat", "face": ""}'))
    thinker = ("--thinker", "server", "--thinker-url", host.url, "--thinker-model", "seer-of-prompts")
    code, result, _ = command(capsys, "prompts", "--emotion", "sad", "--portrait", files / "face.png", *thinker)
    assert code == 0 and result["coarse"].startswith("A man in a brown hat is speaking")
    assert result["face"]["by"] == "seer-of-prompts at 127.0.0.1" and len(result["warnings"]) == 3
    head, data = host.requests[0]["messages"][0]["content"][0]["image_url"]["url"].split(",")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 80)


def test_a_video_is_made_though_the_server_is_gone(files, small_bundle, capsys):
    code, result, _ = command(
        capsys, "generate", "--portrait", files / "face.png", "--speech", files / "speech.wav", "--emotion", "happy",
        "--model", small_bundle, "--device", "cpu", "--dtype", "fp32", "--output", files / "out.mp4", "--thinker",
        "server", "--thinker-url", f"http://127.0.0.1:{unused_port()}", "--thinker-model", "seer",
    )  # fmt: skip
    assert code == 0 and (files / "out.mp4").stat().st_size > 0
    gone = [text for text in result["warnings"] if "cannot be reached" in text]
    assert len(gone) == 1 and "step I (face) is by the rules and all that follow" in gone[0]
    assert result["prompts"]["fine"] == think("happy").prompts.fine


def test_a_face_that_was_chosen_is_what_the_server_sees(host, files, small_bundle):
    host.reply = stream(*events("no"))
    options = GenerateOptions(
        portrait=files / "face.png", speech=files / "speech.wav", output=files / "out.mp4", model=small_bundle,
        face="10,10,40,40", face_margin=0.0, thinker="server", thinker_url=host.url, thinker_model="seer",
    )  # fmt: skip
    assert len([text for text in plan(options).warnings if "by the rules" in text]) >= 3
    _, data = host.requests[0]["messages"][0]["content"][0]["image_url"]["url"].split(",")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 40)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--thinker", "oracle"), "thinker is 'oracle'; choose rules, server, vlm"),
        (("--thinker", "server"), "thinker-model is blank (0 characters)"),
        (("--thinker-url", "http://box"), "thinker-url is given, but the thinker is rules"),
        (("--thinker", "vlm", "--thinker-model", "/nowhere"), "thinker-model /nowhere is not a folder"),
    ],
)
def test_a_wrong_thinker_is_one_line(capsys, given, message):
    code, result, said = command(capsys, "prompts", "--emotion", "happy", *given)
    assert code == 2 and result == {} and said.count("\n") == 1 and message in said
