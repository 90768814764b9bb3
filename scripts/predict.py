"""Classify image files: python scripts/predict.py run=<run folder> images=<file, folder or pattern>"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("predict")
