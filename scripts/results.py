"""Measure the recipes again and write their tables: python scripts/results.py [recipes=[fast_92]] [seeds=10]"""

from fmnist.command_line import run

if __name__ == "__main__":
    run("results")
