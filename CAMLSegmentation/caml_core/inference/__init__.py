"""Prediction: windows, both sub-models, and the way back to the scan's own grid."""
