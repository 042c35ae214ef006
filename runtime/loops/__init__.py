"""Loops over elements, compiled by numba when they first run and kept on disk; numpy arrays in, none allocated.

Importing a module of this package imports numba, which takes half a second: the simulator does so when it first runs.
"""
