"""What is run: one file per task, each with its protocols. Plain numbers and strings."""
