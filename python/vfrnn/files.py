"""Files that are whole or not there: what a run leaves is never half of it, whoever ends the process, and when."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file beside its place and move it there, so that the old one stays until the new one is whole.

    Args:
        path: of the file, in a folder that exists.
        data: its contents; text is written in UTF-8.

    Raises:
        OSError: it cannot be written, as where the disk is full: the message names the file, and what was there
            before is there as it was.
    """
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            kept = "; the old one is as it was" if path.is_file() else ""
            # Of the same type, without the name of the partial file.
            raise OSError(error.errno, f"{path} could not be written: {error.strerror}{kept}") from error
        raise
