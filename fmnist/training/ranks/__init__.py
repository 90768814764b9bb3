"""The processes of one run: who starts them, how they find each other, and what they hear when one is gone."""
