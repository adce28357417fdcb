"""Training: from prepared data to a tested checkpoint."""
