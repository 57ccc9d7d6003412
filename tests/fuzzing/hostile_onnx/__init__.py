"""ONNX files that ask for what no reader may do or take."""
