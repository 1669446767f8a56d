"""Drift of a distribution: cells, effect sizes, evidence that counts both samples' error, multiple tests.

Needs numpy and scipy only. Samples are counts: [blocks, cells], where a block is rows that may depend on each other (a
day, a customer); one block means that rows are taken as independent. Counts of the same cells add up.
"""
