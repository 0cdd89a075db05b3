"""`python -m wsi_norm` is `wsi-norm`."""

from wsi_norm_cli.main import main

if __name__ == "__main__":
    main()
