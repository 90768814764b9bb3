"""The end of a process."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import atexit, sys
from fmnist.processes import QuickEnd
end = QuickEnd()
class Slow:
    def __del__(self):
        print("taken apart")
slow = Slow()
atexit.register(lambda: print("exit handler"))
print("work")
"""


def ended(tmp_path: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "program.py"
    file.write_text(program)
    return subprocess.run([sys.executable, *(arguments or [str(file)])], capture_output=True, text=True, check=False)


def test_a_quick_end_does_what_is_due_and_takes_nothing_apart(tmp_path: Path) -> None:
    end = ended(tmp_path, PROGRAM + "end.succeeded = True")
    assert (end.returncode, end.stdout, end.stderr) == (0, "work\nexit handler\n", "")


def test_without_success_the_end_is_pythons_own(tmp_path: Path) -> None:
    end = ended(tmp_path, PROGRAM + "sys.exit(3)")
    assert (end.returncode, end.stdout) == (3, "work\nexit handler\ntaken apart\n")


def test_a_program_that_runs_a_script_has_its_own_end(tmp_path: Path) -> None:
    other = f"import runpy, sys; runpy.run_path({str(tmp_path / 'program.py')!r}, run_name='__main__'); sys.exit(3)"
    end = ended(tmp_path, PROGRAM + "end.succeeded = True", "-c", other)
    assert (end.returncode, end.stdout) == (3, "work\nexit handler\ntaken apart\n")
