"""Show the data as pictures: python scripts/show_data.py [index=7]"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("show_data")
