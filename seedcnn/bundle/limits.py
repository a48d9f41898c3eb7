"""Caps checked before anything is allocated. A bundle over a cap is refused even if it is correctly signed."""

from __future__ import annotations

MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 8 << 20
MAX_MANIFEST_BYTES = 4 << 20
MAX_JSON_DEPTH = 8
MAX_TENSORS = 16_384
MAX_NORMS = 4_096
MAX_NAME_BYTES = 256
MAX_RANK = 8
MAX_TENSOR_BYTES = 1 << 29
MAX_EXPANDED_BYTES = 1 << 30
MAX_ZSTD_WINDOW_LOG = 23
MAX_GRAPH_BYTES = 64 << 20
MAX_LABELS = 100_000
MAX_CANNED_IMAGES = 64
MAX_CANNED_PICTURES = 64
MAX_CANNED_BYTES = 64 << 20
MAX_IMAGE_SIDE = 4_096
MAX_INT = 2**53 - 1
