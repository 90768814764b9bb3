"""Compare runs: which setting is best, and whether the difference is significant."""

from fmnist.compare.files import write_comparison
from fmnist.compare.formatting import PAGE_FILE
from fmnist.compare.ranking import compare
from fmnist.compare.reading import RunResult, read_runs

__all__ = ["PAGE_FILE", "RunResult", "compare", "read_runs", "write_comparison"]
