"""Where the images come from, and how they reach the network."""
