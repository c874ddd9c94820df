"""Export of classifiers to ONNX."""
