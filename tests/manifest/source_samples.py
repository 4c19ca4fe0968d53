"""Sources as the tests make them."""

import io
import json
import subprocess
import sys
import tarfile


def shard(path, members):
    """Write a tar file of (name, content) pairs; content is bytes, text, or what becomes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, dict):
                content = json.dumps(content)
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read_elsewhere(place):
    """Return what another process reads that knows the place alone."""
    code = (
        "import sys; from featx.manifest.locator import read_place; "
        "sys.stdout.buffer.write(read_place(eval(sys.argv[1])))"
    )
    return subprocess.run([sys.executable, "-c", code, repr(place)], capture_output=True, check=True).stdout
