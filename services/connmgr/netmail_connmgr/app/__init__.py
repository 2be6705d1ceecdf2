"""Wiring of the Connection Manager."""
