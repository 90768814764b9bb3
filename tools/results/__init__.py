"""The recipes measured again, and the tables of docs/results.md made from what was measured."""
