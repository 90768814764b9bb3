"""An audit of a dataset: probable label errors, duplicates and outliers."""
