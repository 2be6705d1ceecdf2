"""Parts of the store in Redis that need none."""
