"""The store in Redis: what the contract of all stores does not say."""
