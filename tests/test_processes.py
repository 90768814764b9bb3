"""The end of a process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest

PROGRAM = """
import atexit, sys
from fmnist.config.processes import quick_end
class Slow:
    def __del__(self):
        print("deleted")
slow = Slow()
atexit.register(lambda: print("exit handler"))
print("work")
"""


@pytest.mark.parametrize(
    ("last", "status", "deleted"),
    [
        ("quick_end.prepare(0)", 0, ""),
        ("quick_end.prepare(130); sys.exit(130)", 130, ""),
        ("sys.exit(3)", 3, "deleted\n"),
    ],
    ids=[
        "a quick end runs exit handlers and deletes nothing",
        "with another status, too",
        "a process that isn't prepared is ended by Python",
    ],
)
def test_the_end_of_a_process(last: str, status: int, deleted: str) -> None:
    end = subprocess.run([sys.executable, "-c", PROGRAM + last], capture_output=True, text=True, check=False)
    assert (end.returncode, end.stdout, end.stderr) == (status, f"work\nexit handler\n{deleted}", "")


def test_a_program_that_runs_a_script_has_its_own_end(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM + "quick_end.prepare(0)")
    other = f"import runpy, sys; runpy.run_path({str(file)!r}, run_name='__main__'); sys.exit(3)"
    end = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
    assert (end.returncode, end.stdout) == (3, "work\nexit handler\ndeleted\n")


@pytest.mark.skipif(not shutil.which("make"), reason="make is missing")
@pytest.mark.parametrize("target", ["train", "results", "benchmark", "test", "soak", "board"])
def test_ending_make_ends_what_it_runs(tmp_path: Path, target: str) -> None:
    for name in ("python", "tensorboard"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nsleep 5 & trap 'echo told; kill $!; exit' TERM\necho started\nwait $!\n")
        program.chmod(0o755)
    (tmp_path / "ready").touch()
    words = [f"BIN={tmp_path}", f"READY={tmp_path / 'ready'}", "ARGS=recipes=[fast_92]"]  # make asks a shell: no quotes
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        ["make", target, *words], cwd=root, env=environment, stdout=PIPE, stderr=DEVNULL, text=True
    ) as make:
        assert make.stdout is not None
        assert make.stdout.readline() == "started\n"
        make.terminate()
        assert make.stdout.read() == "told\n"
