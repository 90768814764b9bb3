"""The recipes measured again, and the tables of RESULTS.md made from what was measured."""
