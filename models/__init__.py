"""What is compared: one encoder, and the mixers that take the place of its attention."""
