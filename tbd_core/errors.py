"""The one error a user can cause and mend: got, the rule, the way out, in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what was got, the rule and the way out."""


@contextmanager
def needed_packages() -> Iterator[None]:
    """Around imports of our own: a package that is missing or does not fit becomes an InputError that says what to
    do."""
    try:
        yield
    except ImportError as error:
        what = f"is missing ({error.name})" if isinstance(error, ModuleNotFoundError) else f"does not fit ({error})"
        raise InputError(
            f'1 package {what}; run `"{sys.executable}" -m pip install -r "{REQUIREMENTS}"`, then start again'
        ) from error
