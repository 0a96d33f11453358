"""Compares the answers of `veratune generate` with those of llama.cpp's server, in the model's chat template, without and with an adapter exported as a LoRA.

    make build model
    .tools/venv/bin/python tools/check_llama.py --llama-server PATH

The model's weights are spelt out in float32 first, so that both compute with the same numbers. Ten prompts, the first 32 tokens, the likeliest each.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from check_templates import Server  # noqa: E402

PROMPTS = [
    "What is the capital of France?", "Name three fruits.", "Explain photosynthesis to a child.", "Write a sentence about the sea.", "What is 12 times 3?",
    "Give me a synonym of happy.", "Who wrote Hamlet?", "Translate good morning into Spanish.", "List two uses of a hammer.", "Why is the sky blue?",
]


def spell_out(source, to):
    """Writes a GGUF file with all tensors in float32."""
    r = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(to, r.get_field("general.architecture").contents())
    for name, field in r.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        w.add_key_value(name, field.contents(), kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for t in r.tensors:
        w.add_tensor(t.name, gguf.dequantize(t.data, t.tensor_type).astype(numpy.float32).reshape([int(n) for n in reversed(t.shape)]))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--veratune", default="bin/veratune")
    p.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    p.add_argument("--llama-server", required=True)
    args = p.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return str(pathlib.Path(folder) / name)

        def veratune(*words):
            return subprocess.run([args.veratune, *words], check=True, capture_output=True, text=True).stdout

        spell_out(args.model, path("f32.gguf"))
        veratune("alpaca", "--model", path("f32.gguf"), "--rank", "64", "--lr", "2e-2", "--steps", "12", "--held-out", "0", "--out", path("run"))
        adapter = path("run/adapter.gguf")
        veratune("export", "--to", "lora", "--type", "f32", "--model", path("f32.gguf"), "--adapter", adapter, "-o", path("lora.gguf"))
        for what, ours, theirs in [("base", [], []), ("adapter", ["--adapter", adapter], ["--lora", path("lora.gguf")])]:
            server = Server(args.llama_server, path("f32.gguf"), "-ctk", "f32", "-ctv", "f32", "-fa", "off", *theirs)
            same = 0
            for prompt in PROMPTS:
                a = veratune("generate", "--model", path("f32.gguf"), "--compute", "f32", "--max-tokens", "32", "-p", prompt, *ours).removesuffix("\n")
                b = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}], "max_tokens": 32, "temperature": 0, "samplers": ["temperature"]})
                b = b["choices"][0]["message"]["content"]
                if a.strip() == b.strip():
                    same += 1
                else:
                    print(f"{what}: {prompt} {a!r} and {b!r}")
            server.close()
            print(f"{what}: {same} of {len(PROMPTS)} answers equal")
            failed = failed or same < len(PROMPTS) - 1
    sys.exit(failed)


if __name__ == "__main__":
    main()
