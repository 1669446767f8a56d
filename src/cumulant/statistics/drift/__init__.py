"""Drift of a distribution: cells, effect sizes, evidence that counts both samples' error, multiple tests.

Samples are counts [blocks, cells]; rows of a block (a day, a customer) may depend on each other.
"""
