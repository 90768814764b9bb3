"""Train a classifier: python scripts/train.py [--help] [key=value ...]"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("train")
