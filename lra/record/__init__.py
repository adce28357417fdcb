"""Result records: their schema, files, validation and submission, and the trivial baselines."""
