"""Data of a task: prepare, verify, preview and export them."""
