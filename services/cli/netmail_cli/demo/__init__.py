"""The demonstration: its configuration file, and the six stages played against it."""

from pathlib import Path

__all__ = ["DEMO_CONFIG"]

DEMO_CONFIG = Path(__file__).with_name("demo.yaml")
"""The configuration file that `make run` uses."""
