"""The shared store with a real Redis: alone, under Sentinels, as a cluster; its faults."""
