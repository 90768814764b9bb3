"""Many jobs from one command line: which there are, where they lie, which are left to do, how far they are."""
