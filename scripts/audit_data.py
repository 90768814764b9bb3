"""Look for label errors, duplicates and outliers in a dataset: python scripts/audit_data.py data=<dataset>"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("audit_data")
