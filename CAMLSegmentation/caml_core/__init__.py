"""CAML (Correlation-Aware Mutual Learning) for semi-supervised volume segmentation, free of Slicer."""

__version__ = "0.1.0"
