"""The Slicer side of CAMLSegmentation: panel, logic, and the way between the scene and the engine ``caml_core``."""
