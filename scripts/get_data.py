"""Put a dataset in place: python scripts/get_data.py [data=mnist] [data.root=<folder>]"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("get_data")
