"""Datasets by name: where their files are, what is in them, and how they are downloaded."""
