"""The project's recipes measured again: which trainings there are, their rows, and the tables made of them."""
