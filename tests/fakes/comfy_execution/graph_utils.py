"""What a node returns in place of a value to stop those below it."""


class ExecutionBlocker:
    def __init__(self, message: str | None):
        self.message = message
