"""`netmail demo`."""


def demo() -> None:
    """Plays the six stages."""
