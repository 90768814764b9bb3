"""Runs side by side: which setting is best, and whether that is more than noise."""

from fmnist.compare.files import PAGE_FILE, write_comparison
from fmnist.compare.ranking import compare
from fmnist.compare.reading import RunResult, read_runs

__all__ = ["PAGE_FILE", "RunResult", "compare", "read_runs", "write_comparison"]
