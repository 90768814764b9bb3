"""Serve a page that classifies pictures: python scripts/demo.py run=<run folder>"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("demo")
