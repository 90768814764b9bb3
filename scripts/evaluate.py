"""Measure a trained classifier again: python scripts/evaluate.py run=<run folder>"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("evaluate")
