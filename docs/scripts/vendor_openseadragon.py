"""Fetch OpenSeadragon from npm again, and put it where the viewer's page finds it.

    .venv/bin/python docs/scripts/vendor_openseadragon.py

Needs `npm`. The archive is held against the integrity hash below, which is the one that the registry
publishes for this version; nothing is replaced where they differ. For another version, change both:
`npm view openseadragon@VERSION dist.integrity`.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from microtome.storage import replace_file

VERSION = "6.1.1"
INTEGRITY = "sha512-g4iKe2q8B642SaBT3+x4ZF3/8b1TxPPydyjmtrOLgDrlYWMKd9ZXM+1Cb/xa9DVySkvs/7l6HR1nHKfD5F3Tsw=="
VENDOR = Path(__file__).parents[2] / "src/microtome/viewer/static/vendor"
FILES = {
    "package/build/openseadragon/openseadragon.min.js": "openseadragon.min.js",
    "package/LICENSE.txt": "openseadragon.LICENSE.txt",
}


def main() -> None:
    """Fetch, check, unpack two files."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"openseadragon@{VERSION}"]
        packed = subprocess.run(  # noqa: S603
            command, cwd=folder, check=True, capture_output=True, text=True
        )
        archive = Path(folder) / packed.stdout.strip()
        digest = hashlib.sha512(archive.read_bytes()).digest()
        found = f"sha512-{base64.b64encode(digest).decode()}"
        if found != INTEGRITY:
            message = f"{archive.name} has the integrity {found}, not {INTEGRITY}: nothing was replaced"
            raise SystemExit(message)
        with tarfile.open(archive) as members:
            for member, name in FILES.items():
                content = members.extractfile(member)
                assert content is not None, member
                with replace_file(VENDOR / name) as beside:
                    beside.write_bytes(content.read())
                print(VENDOR / name)


if __name__ == "__main__":
    main()
