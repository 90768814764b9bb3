"""The end of a process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys
from fmnist.config.processes import QuickEnd
end = QuickEnd()
class Slow:
    def __del__(self):
        print("deleted")
slow = Slow()
atexit.register(lambda: print("exit handler"))
print("work")
"""


def ended(tmp_path: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "program.py"
    file.write_text(program)
    return subprocess.run([sys.executable, *(arguments or [str(file)])], capture_output=True, text=True, check=False)


def test_a_quick_end_runs_exit_handlers_and_deletes_nothing(tmp_path: Path) -> None:
    end = ended(tmp_path, PROGRAM + "end.succeeded = True")
    assert (end.returncode, end.stdout, end.stderr) == (0, "work\nexit handler\n", "")


def test_without_success_python_ends_the_process(tmp_path: Path) -> None:
    end = ended(tmp_path, PROGRAM + "sys.exit(3)")
    assert (end.returncode, end.stdout) == (3, "work\nexit handler\ndeleted\n")


def test_a_program_that_runs_a_script_has_its_own_end(tmp_path: Path) -> None:
    other = f"import runpy, sys; runpy.run_path({str(tmp_path / 'program.py')!r}, run_name='__main__'); sys.exit(3)"
    end = ended(tmp_path, PROGRAM + "end.succeeded = True", "-c", other)
    assert (end.returncode, end.stdout) == (3, "work\nexit handler\ndeleted\n")


@pytest.mark.skipif(not shutil.which("make"), reason="make is missing")
@pytest.mark.parametrize("target", ["train", "results", "benchmark", "test", "soak", "board"])
def test_ending_make_ends_what_it_runs(tmp_path: Path, target: str) -> None:
    for name in ("python", "tensorboard"):
        program = tmp_path / name
        program.write_text(
            "#!/bin/sh\ntrap 'echo told; kill $!; exit' TERM\necho started\nsleep 5 & wait $!\necho alone\n"
        )
        program.chmod(0o755)
    (tmp_path / "ready").touch()
    words = [
        f"BIN={tmp_path}",
        f"READY={tmp_path / 'ready'}",
        "ARGS=recipes=[fast_92]",
    ]  # not quoted: make asks a shell
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    with subprocess.Popen(
        ["make", target, *words],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as make:
        assert make.stdout is not None
        assert make.stdout.readline() == "started\n"
        make.terminate()
        assert make.stdout.read() == "told\n"
