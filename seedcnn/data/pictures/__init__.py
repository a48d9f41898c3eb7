"""Picture files to arrays: folders, decoders, batches for training."""
