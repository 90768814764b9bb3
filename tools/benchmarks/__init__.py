"""How fast the parts are and what they need, in turns with what they replace; a file for each comparison."""
