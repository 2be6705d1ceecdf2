"""Wiring of the two commands: `serve` and `deliver`."""
