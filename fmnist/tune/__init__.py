"""Looking for a better setting: what may be chosen, which trials there were, what came out; Optuna chooses."""
