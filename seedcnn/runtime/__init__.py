"""Inference with bundles, without torch: sessions of ONNX Runtime and OpenVINO, and the fused operator."""
