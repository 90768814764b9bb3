"""Write the report of a run: python scripts/report.py run=<run folder>"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("report")
