"""Runs side by side: which setting is best, and whether that is more than noise."""

from fmnist.comparison.files import PAGE_FILE, write_comparison
from fmnist.comparison.ranking import compare
from fmnist.comparison.reading import RunResult, read_runs

__all__ = ["PAGE_FILE", "RunResult", "compare", "read_runs", "write_comparison"]
