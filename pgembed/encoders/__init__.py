"""What an encoder is: towers, pooling, tokenizers, presets; running one in ONNX Runtime (no torch)."""
