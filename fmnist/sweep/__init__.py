"""Sweeps: many jobs from one command, run by Hydra's sweeper and launchers."""
