"""A server that wants a key: it gets the one of the environment, nobody else does, and nothing shows it."""

import dataclasses
import json
import runpy
from operator import itemgetter
from pathlib import Path

import pytest
from PIL import Image

from tbd_core.cot_fa.asking import Memory, ask
from tbd_core.cot_fa.server import Server
from tbd_core.cot_fa.server_key import key_for
from tbd_core.errors import InputError


HOSTING = runpy.run_path(str(Path(__file__).with_name("thinker_host.py")))
ANSWER, Host, ask_once, begin, event, events, refused, stream = itemgetter(
    "ANSWER", "Host", "ask_once", "begin", "event", "events", "refused", "stream"
)(HOSTING)
SECRET = "sk-f00d/BEEF+1234"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("TBD_THINKER_KEY", "TBD_THINKER_KEY_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("TBD_THINKER_KEY", f" {SECRET}\n")


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


def wants_key(handler, _request):
    """As vllm --api-key and LM Studio do; it repeats the key that it was given."""
    given = handler.headers["Authorization"]
    if given == f"Bearer {SECRET}":
        begin(handler)
        handler.wfile.writelines(events(ANSWER))
    else:
        begin(handler, "application/json", 401)
        handler.wfile.write(json.dumps({"error": {"message": f"wrong key: {given}"}}).encode())


def test_the_key_of_the_environment_opens_the_server(host, key):
    host.reply = wants_key
    assert ask_once(host.url) == ANSWER and host.keys == [f"Bearer {SECRET}"]


def test_without_a_key_none_is_sent_and_the_refusal_says_how(host):
    host.reply = wants_key
    error = refused(host.url)
    assert host.keys == [None] and error.hopeless
    assert "HTTP 401: 'wrong key: None'; set the environment variable TBD_THINKER_KEY to the server's key" in str(error)


def test_a_wrong_key_is_said_to_be_wrong_and_never_shown(host, monkeypatch):
    host.reply = wants_key
    monkeypatch.setenv("TBD_THINKER_KEY", "sk-other")
    error = refused(host.url)
    assert "HTTP 401: 'wrong key: Bearer ***'; the key in TBD_THINKER_KEY was sent, and it is not" in str(error)
    assert "sk-other" not in str(error)


@pytest.mark.parametrize(
    "piece", [event(error={"message": f"no model for {SECRET}"}), f"data: {SECRET} half\n\n".encode()]
)
def test_a_key_that_the_server_repeats_is_not_shown(host, key, piece):
    host.reply = stream(piece)
    assert SECRET not in (said := str(refused(host.url))) and "***" in said


def test_a_redirection_takes_the_key_nowhere(host, key):
    other = Host()

    def away(handler, _request):
        handler.send_response(307)
        handler.send_header("Location", f"{other.url}/chat/completions")
        handler.end_headers()

    host.reply, other.reply = away, stream(*events(ANSWER))
    assert "HTTP 307" in str(refused(host.url))
    other.close()
    assert host.keys == [f"Bearer {SECRET}"] and other.requests == []


def test_another_machine_gets_the_key_only_when_the_environment_names_it(key, monkeypatch):
    assert key_for("127.0.0.1", True).headers() == {"Authorization": f"Bearer {SECRET}"}
    stranger = key_for("box", False)
    assert stranger.headers() == {} and "this machine's servers alone; set TBD_THINKER_KEY_HOST=box" in stranger.way_out
    monkeypatch.setenv("TBD_THINKER_KEY_HOST", "Box")
    assert Server("https://box/v1", "seer").key.headers() == {"Authorization": f"Bearer {SECRET}"}
    for url in ("https://box.evil.org/v1", "https://evil.org/box"):
        assert Server(url, "seer").key.headers() == {}


def test_nothing_of_a_thought_or_a_server_shows_the_key(host, key):
    host.reply = wants_key
    server = Server(host.url, "seer")
    thought = ask(server, "sad", picture=Image.new("RGB", (8, 8)), memory=Memory())
    assert len(host.keys) > 1
    shown = (dataclasses.asdict(thought), server.name, server.identity, server.key, host.requests, host.paths)
    assert SECRET not in repr(shown)


@pytest.mark.parametrize("value", ["sk 1", "sk\r\nHost: evil", "schlüssel"])
def test_what_is_no_key_is_refused_and_not_shown(monkeypatch, value):
    monkeypatch.setenv("TBD_THINKER_KEY", value)
    with pytest.raises(InputError, match=f"TBD_THINKER_KEY has {len(value)} characters, not all of them") as caught:
        Server("http://127.0.0.1:9", "seer")
    assert value not in str(caught.value)
