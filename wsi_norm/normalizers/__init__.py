"""Normalisers at work on uint8 tiles: the learned layer, the classic ones, none."""
