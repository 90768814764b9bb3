"""Tuning: a search for better settings with Optuna."""
