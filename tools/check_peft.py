#!/usr/bin/env python3
"""Checks that PEFT and veratune give the same logits and gradients for the same adapters, on the GGUF's own dequantised weights in float32.

    python3 -m venv .tools/venv && .tools/venv/bin/pip install -r tools/requirements.txt
    go test ./cmd/veratune -run PEFTAgrees -v

The test runs this script, with the interpreter that PYTHON names (default .tools/venv/bin/python), both ways:

    tools/check_peft.py --model M.gguf --tokens 3,1,4 FOLDER …
        loads each folder with PeftModel.from_pretrained and compares its logits with those that veratune has left in FOLDER.logits, and the gradients of the mean
        loss of predicting each token with those in FOLDER.gradients, a folder like FOLDER with a gradient in the place of each number
    tools/check_peft.py --model M.gguf --tokens 3,1,4 --make FOLDER --seed 5 --rank 16 --targets q_proj,v_proj
        makes an adapter with PEFT, saves it without its projections, and leaves PEFT's logits in FOLDER.logits
    tools/check_peft.py --model M.gguf --tokens 3,1,4 --lora FOLDER '{"r": 8, "target_modules": ["q_proj"], "use_rslora": true}' …
        does so with a LoRA of these options of LoraConfig, whose A and B are random

A model of another architecture than Llama's needs --config FOLDER, with the config.json of the model that the GGUF was converted from. One of those in ../shared/refs/arch:

    go test ./cmd/veratune -run PEFTAgreesOnArchitectures/gemma3 -v

A .logits file holds little-endian float32 numbers, the vocabulary's for each token in turn. Prints a JSON line for each folder; exits with 1 where one differs.
"""

import argparse
import json
import sys
import warnings

import numpy as np
import torch
from peft import LoraConfig, PeftModel, VeraConfig, get_peft_model
from safetensors.torch import load_file
from transformers.utils import logging

from gguf_model import load_described
from peft_bench import load_model

# Rounding of float32 in another order of additions, through all blocks: what the engine's own tests allow against float64.
TOLERANCE = 2e-3
# Of a tensor's gradient, relative in the L2 norm.
GRADIENT_TOLERANCE = 5e-4


def logits(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([tokens])).logits[0].numpy()


def check(base: torch.nn.Module, folder: str, tokens: list[int]) -> bool:
    """Compares, and gives the base model back as it was."""
    plain = logits(base, tokens)
    adapted = PeftModel.from_pretrained(base, folder, is_trainable=True)
    ours = np.fromfile(folder + ".logits", "<f4").reshape(plain.shape)
    theirs = logits(adapted, tokens)
    gradient = gradients_differ(adapted, folder + ".gradients", tokens)
    adapted.unload()
    difference, effect = float(np.abs(ours - theirs).max()), float(np.abs(theirs - plain).max())
    # An adapter that changes nothing would agree with anything.
    agrees = difference <= TOLERANCE and effect > 100 * TOLERANCE and gradient <= GRADIENT_TOLERANCE
    print(json.dumps({"folder": folder, "difference": difference, "effect": effect, "gradient": gradient, "agrees": agrees}))
    return agrees


def gradients_differ(model: torch.nn.Module, folder: str, tokens: list[int]) -> float:
    """The relative difference of the tensor whose gradients differ most."""
    ours = load_file(folder + "/adapter_model.safetensors")
    model.zero_grad()
    inputs = torch.tensor([tokens])
    torch.nn.functional.cross_entropy(model(input_ids=inputs).logits[0, :-1], inputs[0, 1:]).backward()
    worst, seen = 0.0, 0
    for name, p in model.named_parameters():
        if p.requires_grad:
            want = p.grad
            got = ours[name.replace(".default", "")]
            worst = max(worst, float((got - want).norm() / want.norm()))
            seen += 1
    return worst if seen else float("inf")


def make(base: torch.nn.Module, args: argparse.Namespace) -> None:
    config = VeraConfig(
        r=args.rank, target_modules=args.targets if args.targets == "all-linear" else args.targets.split(","), projection_prng_key=args.seed, save_projection=False, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config)
    torch.manual_seed(args.seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "vera_lambda_" in name:
                p.copy_(0.1 + 0.1 * torch.randn_like(p))
    model.save_pretrained(args.make)
    logits(model, args.tokens).astype("<f4").tofile(args.make + ".logits")
    model.unload()


def make_lora(base: torch.nn.Module, folder: str, options: dict, args: argparse.Namespace) -> None:
    plain = logits(base, args.tokens)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
    torch.manual_seed(args.seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * (p.shape[1] ** -0.5 if "lora_A" in name else args.scale))
    model.save_pretrained(folder)
    adapted = logits(model, args.tokens)
    adapted.astype("<f4").tofile(folder + ".logits")
    effect = float(np.abs(adapted - plain).max())
    print(json.dumps({"made": folder, "effect": effect}))
    if effect < 50 * TOLERANCE:
        sys.exit(f"{folder} changes logits by {effect} only: anything would agree")
    model.unload()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="adapters of PEFT to compare")
    parser.add_argument("--model", required=True, metavar="GGUF")
    parser.add_argument("--config", metavar="FOLDER", help="with the config.json of the model")
    parser.add_argument("--tokens", required=True, type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--make", metavar="FOLDER", help="make an adapter there")
    parser.add_argument("--lora", nargs=2, action="append", default=[], metavar=("FOLDER", "JSON"), help="make a LoRA there, with these options of LoraConfig")
    parser.add_argument("--scale", type=float, default=0.01, help="standard deviation of B in a LoRA that is made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default="q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj")
    args = parser.parse_args()

    logging.set_verbosity_error()
    warnings.filterwarnings("error", message="Found missing adapter keys")
    base = load_described(args.model, args.config) if args.config else load_model(args.model)
    if args.make:
        make(base, args)
    for folder, options in args.lora:
        make_lora(base, folder, json.loads(options), args)
    agree = [check(base, folder, args.tokens) for folder in args.folders]
    if not all(agree):
        sys.exit(f"logits differ by more than {TOLERANCE}, or gradients by more than {GRADIENT_TOLERANCE}")


if __name__ == "__main__":
    main()
