"""Image files: folders of them, decoders, and batches for training and evaluation."""
