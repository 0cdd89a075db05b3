"""The command line, installed as `wsi_norm_cli`: parse, call the library, show progress, exit."""
