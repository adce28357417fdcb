"""Which code and which environment computed a run."""
