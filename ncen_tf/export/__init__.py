"""Export: SavedModel and ONNX files, a manifest, and proof that they are the trained ensemble."""
