"""Servers on 127.0.0.1 that refuse, dawdle, die, and talk without end: each is noticed, and nothing hangs."""

import runpy
import socket
import threading
import time
from operator import itemgetter
from pathlib import Path

import pytest

from tbd_core.cot_fa.answers import MOST_CHARACTERS
from tbd_core.cot_fa.server import Limits


HOSTING = runpy.run_path(str(Path(__file__).with_name("thinker_host.py")))
(
    PATIENT, QUICK, Host, ask_once, assert_no_thread_stays, begin, event, refused, stream, token, unused_port
) = itemgetter(
    "PATIENT", "QUICK", "Host", "ask_once", "assert_no_thread_stays", "begin", "event", "refused", "stream", "token",
    "unused_port"
)(HOSTING)  # fmt: skip


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


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
