"""Ctrl-C at the end of a training step (ours), so that a checkpoint can be saved first."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class Interrupts:
    """Inside the block Ctrl-C, and SIGTERM where the program handles it, wait for `deliver`; a second does not wait.

    Outside the main thread nothing changes: Python lets only that one handle signals.
    """

    def __init__(self) -> None:
        self.waiting: int | None = None  # the signal's number
        self.former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(number)):
                    self.former[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)
        if error is None:
            self.deliver()

    def _hear(self, number: int, frame: Any) -> None:
        if self.waiting is not None:
            self.former[number](number, frame)
        self.waiting = number

    def deliver(self) -> None:
        """Do now what a signal that came meanwhile asked for."""
        if self.waiting is not None:
            number, self.waiting = self.waiting, None
            self.former[number](number, None)
            raise KeyboardInterrupt  # when the former handler returned
