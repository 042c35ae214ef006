"""The reference of the Python API, generated from the code: ``python -m quartic.manual docs/api.md``."""
