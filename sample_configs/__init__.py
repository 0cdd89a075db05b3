"""Settings to start from: `wsi-norm run --config <name>.yaml`."""
