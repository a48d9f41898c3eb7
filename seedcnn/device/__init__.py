"""The device side: verify a signed bundle, keep it in one of two slots, regenerate its weights, test it, run it.

Importing this package imports nothing else. ``updater``, ``slots`` and ``agent`` need no numpy until a bundle has been
verified; nothing here needs torch.
"""
