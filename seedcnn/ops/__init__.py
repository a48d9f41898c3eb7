"""Tensor functions; an op with several implementations has its own folder, with a readable reference."""
