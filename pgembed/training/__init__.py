"""Fine-tuning with torch: model, loss, optimiser, loop, checkpoint, ONNX export. The only part that imports torch."""
