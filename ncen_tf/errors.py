"""What is raised when something that a user gave does not work."""


class InputError(ValueError):
    """A flag, file or value cannot be used; the message is one sentence on what, where and the way out."""
