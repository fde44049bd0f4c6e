"""What PyAV raises."""


class FFmpegError(Exception):
    def __init__(self, code: int, message: str, filename: str | None = None, log: tuple | None = None):
        super().__init__(code, message)
        self.errno, self.strerror, self.filename, self.log = code, message, filename, log

    def __str__(self) -> str:
        return f"[Errno {self.errno}] {self.strerror}"
