"""What wsi-norm costs beside its rivals, in one interleaved go: `python -m benchmarks --help`."""
