"""A bundle made to answer: sessions of ONNX Runtime and OpenVINO, and the fused operator. No torch."""
