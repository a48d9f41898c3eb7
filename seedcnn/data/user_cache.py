"""Where downloaded data is kept: the platform's cache directory of the user, who may have none."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from seedcnn.errors import DataError

__all__ = ["user_cache"]


def user_cache(part: str) -> Path:
    """Return the directory of ``part`` in the platform's cache directory for seedcnn.

    Raises:
        DataError: if the user has no home directory and the environment names none.
    """
    try:
        found = Path(platformdirs.user_cache_dir("seedcnn"))
    except RuntimeError:
        found = None
    if found is None or not found.is_absolute():
        raise DataError(
            f"there is no cache directory for {part}: the user has no home directory, and neither HOME nor "
            "XDG_CACHE_HOME is set; set one of them"
        )
    return found / part
