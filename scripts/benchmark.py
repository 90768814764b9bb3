"""Measure how fast the parts are: python scripts/benchmark.py [what=[input]] [repetitions=5]"""

from fmnist.command_line import run

if __name__ == "__main__":
    run("benchmark")
