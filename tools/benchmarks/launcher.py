"""A small process between the benchmark and one that it measures.

The peak memory that the system tells of a process is at least what its parent needed when it started it, and the
benchmark is large. And the launcher ends the process when the benchmark, which holds its input open, is gone.
"""

import json
import os
import subprocess
import sys
import threading
import time


def launch() -> None:
    """Runs the command of the command line, and prints JSON: seconds, peak memory in KiB, status, end (monotonic)."""
    start = time.monotonic()
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def end_with_benchmark() -> None:
        sys.stdin.read()
        child.kill()

    threading.Thread(target=end_with_benchmark, daemon=True).start()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    ended = time.monotonic()
    unit = 1 / 1024 if sys.platform == "darwin" else 1  # macOS tells bytes
    result = {
        "seconds": ended - start,
        "peak_kib": usage.ru_maxrss * unit,
        "status": child.returncode,
        "started": start,
        "ended": ended,
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # the thread still waits for input
