"""One module per benchmark, each with a function `compare(options)`."""
