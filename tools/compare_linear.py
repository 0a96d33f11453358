#!/usr/bin/env python3
"""Measures veratune's matrix products beside PyTorch's linear (oneDNN, MKL) on ready matrices of the same shapes and precision, in one run.

    make build model
    .tools/venv/bin/python tools/compare_linear.py --model models/SmolLM2-135M-Instruct.Q4_1.gguf --compute bf16 --tokens 1024

veratune unpacks the quantised matrix in every product; PyTorch has it in float32 or bfloat16 already. "linear" is X Wᵀ, "linear back" G W,
"weight gradient" Gᵀ X. The two take turns, since a machine is not equally fast from minute to minute. Nothing else should run meanwhile.

tools/requirements.txt lists the packages.
"""

import argparse
import json
import subprocess
import time

import torch


def rate(f, operations: float, seconds: float = 0.3) -> float:
    """GFLOP/s of the fastest run of f within that time, as veratune measures its own."""
    f()
    start, fastest = time.perf_counter(), float("inf")
    while time.perf_counter() - start < seconds:
        began = time.perf_counter()
        f()
        fastest = min(fastest, time.perf_counter() - began)
    return operations / fastest / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--compute", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3, help="times that both are measured, in turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.compute == "bf16" else torch.float32

    command = ["bin/veratune", "bench", "kernels", "--json", "--model", args.model, "--compute", args.compute]
    command += ["--tokens", str(args.tokens), "--threads", str(args.threads)]
    best: dict[tuple, dict] = {}
    for _ in range(args.rounds):
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        for s in map(json.loads, ran.stdout.splitlines()):
            s["theirs"] = pytorch(s, args.tokens, dtype)
            kept = best.setdefault((s["op"], s["weight"], s["in"], s["out"]), s)
            for key in ("fused", "composed", "theirs"):
                kept[key] = max(kept[key], s[key])

    print(f"{args.compute}, {args.threads} threads, {args.tokens} tokens, best of {args.rounds} rounds; GFLOP/s")
    print(f"{'operation':16} {'weight':6} {'in':>6} {'out':>6} {'veratune':>9} {'stock ggml':>10} {'PyTorch':>9} {'ratio':>6}")
    for s in best.values():
        print(
            f"{s['op']:16} {s['weight']:6} {s['in']:6} {s['out']:6} {s['fused']:9.0f} {s['composed']:10.0f} {s['theirs']:9.0f} {s['fused'] / s['theirs']:6.2f}"
        )


def pytorch(s: dict, tokens: int, dtype: torch.dtype) -> float:
    """GFLOP/s of PyTorch on matrices like those of a line of veratune's."""
    w = torch.randn(s["out"], s["in"]).to(dtype)
    x, g = torch.randn(tokens, s["in"]).to(dtype), torch.randn(tokens, s["out"]).to(dtype)
    f = {
        "linear": lambda: torch.nn.functional.linear(x, w),
        "linear back": lambda: g @ w,
        "weight gradient": lambda: g.T @ x,
    }[s["op"]]
    with torch.no_grad():
        return rate(f, 2.0 * s["in"] * s["out"] * tokens)


if __name__ == "__main__":
    main()
