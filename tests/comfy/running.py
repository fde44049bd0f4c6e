"""A ComfyUI as people start it: its own process, a folder of its own, this pack in it, no GPU."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
PACK = "comfyui-think-before-draw"
SAMPLE = ROOT / "tbd_core" / "assets" / "sample"
ENDED = ("success", "error")


class RefusedError(Exception):
    """ComfyUI did not take a graph; the message is what it answered."""


class Server:
    """`with Server(folder) as server:` runs one; `log` is what it said so far."""

    def __init__(self, folder: Path, arguments: tuple[str, ...] = ()):
        self.folder, self.arguments = folder, arguments
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        assert (COMFYUI / "main.py").is_file(), f"{COMFYUI} is no ComfyUI; set COMFYUI_PATH"
        for below in ("custom_nodes", "user", "input", "output"):
            (self.folder / below).mkdir(parents=True, exist_ok=True)
        link = self.folder / "custom_nodes" / PACK
        if not link.exists():
            link.symlink_to(ROOT, target_is_directory=True)
        for name in ("portrait.png", "speech.wav"):
            shutil.copyfile(SAMPLE / name, self.folder / "input" / name)
        self._log = (self.folder / "log").open("w+", encoding="utf-8")
        command = [
            sys.executable, "main.py", "--cpu", "--base-directory", str(self.folder), "--port", str(self.port),
            "--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK, "--disable-api-nodes",
            "--database-url", "sqlite:///:memory:", *self.arguments,
        ]  # fmt: skip
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            command, cwd=COMFYUI, env=clean, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        try:
            self._wait_for(lambda: self.get("/system_stats"), 120, "answered")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8")

    def _wait_for(self, ask, seconds: float, what: str) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"ComfyUI ended:\n{self.log[-3000:]}"
            try:
                if answer := ask():
                    return answer
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"not {what} after {seconds} s:\n{self.log[-3000:]}")

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.read(path))

    def post(self, path: str, data: dict[str, Any]) -> Any:
        body = json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise RefusedError(error.read().decode()) from None

    def queue(self, graph: dict[str, Any], targets: list[str] | None = None) -> str:
        """The id of the run. RefusedError when ComfyUI finds any of its nodes faulty (it would run the others)."""
        wanted = {} if targets is None else {"partial_execution_targets": targets}
        answer = self.post("/prompt", {"prompt": graph, "client_id": "tests", **wanted})
        if answer.get("node_errors"):
            raise RefusedError(json.dumps(answer["node_errors"]))
        return answer["prompt_id"]

    def result(self, run: str, seconds: float = 300) -> dict[str, Any]:
        """`{"outputs": {node: …}, "status": {"status_str", "messages"}}`, once the run has ended."""

        def ended() -> dict[str, Any] | None:
            entry = self.get(f"/history/{run}").get(run)
            return entry if entry and entry["status"]["status_str"] in ENDED else None

        return self._wait_for(ended, seconds, "done")

    def has_begun(self, run: str, seconds: float = 60) -> None:
        """Waits until the run is the one in work."""
        self._wait_for(lambda: any(run == one[1] for one in self.get("/queue")["queue_running"]), seconds, "begun")


def said(result: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The messages of one kind that a run has left, such as `execution_cached`."""
    return [data for name, data in result["status"]["messages"] if name == kind]


def result_files(result: dict[str, Any], folder: Path) -> list[Path]:
    """Every file that the run shows as a result."""
    found = []
    for shown in result["outputs"].values():
        for entry in (one for kind in ("images", "video", "gifs") for one in shown.get(kind, ())):
            found.append(folder / entry["type"] / entry.get("subfolder", "") / entry["filename"])
    return found
