"""Tensor functions; one folder for each op that has more than one implementation, its readable reference first."""
