"""Which node is running."""

from contextvars import ContextVar
from typing import NamedTuple


class ExecutionContext(NamedTuple):
    prompt_id: str
    node_id: str
    list_index: int | None


current_executing_context = ContextVar("current_executing_context", default=None)


def get_executing_context():
    return current_executing_context.get()


class CurrentNodeContext:
    def __init__(self, prompt_id: str, node_id: str, list_index: int | None = None):
        self.context = ExecutionContext(prompt_id, node_id, list_index)

    def __enter__(self):
        self.token = current_executing_context.set(self.context)
        return self

    def __exit__(self, *_):
        current_executing_context.reset(self.token)
