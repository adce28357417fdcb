"""The efficiency benchmark: speed and memory of mixers against the length."""
