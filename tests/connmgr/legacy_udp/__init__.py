"""UDP port 689."""
