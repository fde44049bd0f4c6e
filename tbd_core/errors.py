"""The one error a user can cause and mend: got, the rule, the way out, in one line."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what was got, the rule and the way out."""
