"""Tensor functions. An op with several implementations has a folder, which includes a readable reference."""
