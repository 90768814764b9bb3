"""Measure a trained classifier on corrupted images: python scripts/robustness.py run=<run folder>"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("robustness")
