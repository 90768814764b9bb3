"""Name what a person's own images show: python scripts/predict.py run=<run folder> images=<file, folder or glob>"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("predict")
