"""Compare runs: python scripts/compare.py outputs/train [outputs/tune ...] [metric=val/loss]"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("compare")
