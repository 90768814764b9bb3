"""Find a learning rate: python scripts/find_lr.py [optimizer=<name>] [model=<name>]"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("find_lr")
