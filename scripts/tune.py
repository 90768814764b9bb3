"""Search for a better setting: python scripts/tune.py [--help] [search=<name>] [trials=30] [key=value ...]"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("tune")
