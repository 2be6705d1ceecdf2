"""Fuzz targets: a module `fuzz_NAME.py` each, with `one_input(data)` and `seeds()`."""
