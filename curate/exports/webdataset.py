"""WebDataset: `000000.tar` and so on, with `ID.mp4`, `ID.txt` (caption) and `ID.json` (every other column) of each clip."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate.exports.items import Item, json_values


def write(items: Iterable[Item], out: Path, index: Mapping[str, Any], tar_bytes: int = 2**28) -> None:
    """Writes tar files of about `tar_bytes`. Members have no times or owners, so the same clips give the same bytes."""
    number, tar = 0, None
    for item in items:
        if tar is None or tar.offset > tar_bytes:
            if tar is not None:
                tar.close()
            tar = tarfile.open(out / f"{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            number += 1
        columns = json.dumps(json_values(item.row), ensure_ascii=False)
        for suffix, data in (("mp4", item.mp4), ("txt", item.caption.encode()), ("json", columns.encode())):
            member = tarfile.TarInfo(f"{item.clip_id}.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    if tar is not None:
        tar.close()
