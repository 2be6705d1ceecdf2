"""Decisions. No IO."""
