"""Measure the recipes again and write their tables: python scripts/results.py [recipes=[fast_92]] [seeds=10]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # `tools` is no part of what is installed

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("results")
