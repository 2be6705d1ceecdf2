"""How much longer things take on a machine that others use too."""

import os


def patience() -> float:
    """1 on a machine with a processor for everybody who wants one, more on a busy one.

    Limits of time are multiplied by it, and it is printed with what was measured.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
