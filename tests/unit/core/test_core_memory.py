"""What a process has freed goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
from cumulant.core.system.memory import release_free_memory, resident_memory

if {first}:
    release_free_memory()
held = [b"x" * ({size} + one) for one in range({count})]
last = held.pop()
full = resident_memory()
del held
freed = resident_memory()
release_free_memory()
print(full, freed, resident_memory())
"""
MIB = 1 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide by themselves")
@pytest.mark.parametrize(("size", "count", "first"), [(100_000, 2000, False), (8 * MIB, 25, True)])
def test_freed_memory_goes_back(size: int, count: int, *, first: bool) -> None:
    program = PROGRAM.format(size=size, count=count, first=first)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    full, freed, released = map(int, done.stdout.split())
    assert released < full - 150 * MIB
    if first:  # large arrays go back as soon as they are freed
        assert freed < full - 150 * MIB


ARRAYS = """
import resource
import threading

import numpy as np
from cumulant.core.system.memory import release_free_memory

release_free_memory()

def work():
    values = np.ones(100_000)
    for turn in range(2_020):
        if turn == 20:
            begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        made = values * 2
        again = made + 1
        del made, again
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun)

if {thread}:
    one = threading.Thread(target=work)
    one.start()
    one.join()
else:
    work()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide by themselves")
@pytest.mark.parametrize("thread", [False, True])
def test_arrays_of_a_loop_take_the_pages_of_those_before(*, thread: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ARRAYS.format(thread=thread)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 2_000  # an array has some 200 pages
