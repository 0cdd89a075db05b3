"""Labelled tiles for training and evaluation: which there are, what is cut, who shares a batch."""
