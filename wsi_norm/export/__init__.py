"""Complete stores as files of other tools: one module per format, behind the door `base`."""

from wsi_norm.export.base import Outcome, export

__all__ = ["Outcome", "export"]
