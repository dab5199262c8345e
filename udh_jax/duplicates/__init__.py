"""Pictures that are there more than once: codes of how they look, and a check on the pictures."""
