"""One encoder for all protocols, and the mixers that replace its attention layer."""
