"""A thinker behind HTTP: real servers on 127.0.0.1 whose answers are read, and four steps asked of them."""

import base64
import io
import json
import runpy
from operator import itemgetter
from pathlib import Path

import pytest
from PIL import Image

from tbd_core.cot_fa.asking import Memory, UnansweredError, ask
from tbd_core.cot_fa.server import Server, check_url
from tbd_core.cot_fa.think import think
from tbd_core.cot_fa.thinkers import ThinkerOptions, thought_of
from tbd_core.errors import InputError


HOSTING = runpy.run_path(str(Path(__file__).with_name("thinker_host.py")))
ANSWER, PATIENT, Host, ask_once, assert_no_thread_stays, begin, event, events, stream, token = itemgetter(
    "ANSWER", "PATIENT", "Host", "ask_once", "assert_no_thread_stays", "begin", "event", "events", "stream", "token"
)(HOSTING)  # fmt: skip


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


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
        (stream(*[token("y" * 1000)] * 20), 4, 8),
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
