"""LStainNorm in front of a classifier or a segmenter: train it, and see what it learned."""
