"""Structs that several threads decode for the first time at once."""

import subprocess
import sys

import pytest

#: forks, in each of which four threads decode a type that its parent has never decoded; prints the signals
PROGRAM = """
import os, sys, threading
import msgspec
from cumulant.alerting.alert_state import AlertsState
from cumulant.core.structs import prepare_decoding

sys.setswitchinterval(1e-6)
if sys.argv[1] == "prepared":
    prepare_decoding(AlertsState)


def decode(barrier):
    barrier.wait()
    for name in AlertsState.__struct_encode_fields__:
        for value in ({}, [{}], {"a": {}}):
            try:
                msgspec.convert({name: value}, AlertsState)
            except msgspec.ValidationError:
                pass


signals = []
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=decode, args=[barrier]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        signals.append(os.WTERMSIG(status))
print(signals)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_type_that_is_prepared_can_be_decoded_by_threads():
    # Without `prepared` about one fork in ten ends with SIGSEGV (msgspec 0.22.0).
    done = subprocess.run([sys.executable, "-c", PROGRAM, "prepared"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
