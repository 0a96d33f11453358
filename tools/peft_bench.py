#!/usr/bin/env python3
"""Trains PEFT's VeRA or LoRA on the rows and the model of `veratune bench train`, and prints its speed as one JSON object.

    tools/peft_bench.py --model M.gguf --data rows.json --rows 64 --rank 1024 --dtype f32
    tools/peft_bench.py --model M.gguf --check reference.json

The GGUF's own tensors are dequantised into a transformers LlamaForCausalLM, and its own vocabulary makes the tokens, so both programs
start from the same numbers and read the same text. Nothing is fetched from a network. The first --rows rows are taken in the file's
order, in the Alpaca template, padded to the longest of their batch; a step is --accumulation batches and one AdamW update. tokens_per_s
counts what had to be computed: a row's tokens without padding, and without its last one, which is predicted but predicts nothing.

tools/requirements.txt lists the packages.
"""

import argparse
import itertools
import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gguf
import numpy as np
import torch
from peft import LoraConfig, VeraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

TASK = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request."
WITHOUT_INPUT = TASK + ". " + REQUEST + "\n\n### Instruction:\n{instruction}\n\n### Response:\n"
WITH_INPUT = (
    TASK + ", paired with an input that provides further context. " + REQUEST
    + "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)

# GGUF's names of a block's tensors, and transformers'. VeRA and LoRA adapt those that are no norm.
BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
TARGETS = [name.split(".")[1] for name in BLOCK.values() if name.endswith("_proj")]
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

IGNORED = -100  # the label that transformers takes no loss on


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of attn_q or attn_k in transformers' order: GGUF interleaves the two halves that rope rotates together."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def load_model(path: str) -> LlamaForCausalLM:
    """The GGUF's Llama in float32, every tensor dequantised as ggml does."""
    reader = gguf.GGUFReader(path)

    def value(key, default=None):
        field = reader.fields.get(key)
        return default if field is None else field.contents()

    architecture = value("general.architecture")
    if architecture != "llama":
        sys.exit(f"{path}: architecture {architecture}; only llama is known here")
    if value("llama.rope.scaling.type", "none") != "none":
        sys.exit(f"{path}: rope scaling {value('llama.rope.scaling.type')} is not known here")
    tensors = {t.name: t for t in reader.tensors}
    heads = value("llama.attention.head_count")
    kv_heads = value("llama.attention.head_count_kv", heads)
    width = value("llama.embedding_length")
    config = LlamaConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=width,
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=value("llama.attention.key_length", width // heads),
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("llama.rope.freq_base", 10000.0)},
        tie_word_embeddings="output.weight" not in tensors,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).float()
    missing = {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        for name, t in tensors.items():
            data = gguf.quants.dequantize(t.data, t.tensor_type)
            if name == "rope_freqs.weight":  # Llama 3: frequencies are divided by these
                model.model.rotary_emb.inv_freq /= torch.tensor(data)
                continue
            stem = name.removesuffix(".weight")
            if stem.startswith("blk."):
                _, block, stem = stem.split(".")
                target = f"model.layers.{block}.{BLOCK[stem]}.weight"
                if stem in ("attn_q", "attn_k"):
                    data = unpermuted(data, heads if stem == "attn_q" else kv_heads)
            else:
                target = OUTSIDE[stem] + ".weight"
            model.get_parameter(target).copy_(torch.tensor(data))
            missing.remove(target)
    if missing:
        sys.exit(f"{path}: no tensor for {', '.join(sorted(missing))}")
    return model


def read_rows(path: str, count: int) -> list[dict]:
    """The first rows with an answer of a JSON array or of JSON lines, in Alpaca's three fields."""
    text = Path(path).read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    rows = [row for row in rows if row["output"].strip()]
    if len(rows) < count:
        sys.exit(f"{path}: {len(rows)} rows, not {count}")
    return rows[:count]


def encode(rows: list[dict], model_path: str, max_length: int) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each row, the end token included; the loss is the response's alone."""
    folder, name = os.path.split(os.path.abspath(model_path))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    samples = []
    for row in rows:
        has_input = row.get("input", "") not in ("", "<noinput>")
        prompt = tokenizer.encode((WITH_INPUT if has_input else WITHOUT_INPUT).format(**row))
        response = tokenizer.encode(row["output"], add_special_tokens=False) + [tokenizer.eos_token_id]
        labels = [IGNORED] * len(prompt) + response
        samples.append(((prompt + response)[:max_length], labels[:max_length]))
    return samples


def cut_to(samples: list, length: int) -> list:
    """The same tokens end to end, in samples of exactly that length: batches without padding."""
    ids = list(itertools.chain.from_iterable(ids for ids, _ in samples))
    labels = list(itertools.chain.from_iterable(labels for _, labels in samples))
    return [(ids[i : i + length], labels[i : i + length]) for i in range(0, len(ids) - length + 1, length)]


def padded(batch: list) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in batch)

    def fill(rows, with_):
        return torch.tensor([row + [with_] * (longest - len(row)) for row in rows])

    return {
        "input_ids": fill([ids for ids, _ in batch], 0),
        "labels": fill([labels for _, labels in batch], IGNORED),
        "attention_mask": fill([[1] * len(ids) for ids, _ in batch], 0),
    }


def adapted(model: LlamaForCausalLM, method: str, rank: int, dtype: str) -> torch.nn.Module:
    if method == "vera":
        config = VeraConfig(r=rank, target_modules=TARGETS, d_initial=0.1, projection_prng_key=0, task_type="CAUSAL_LM")
    else:
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    # The adapter takes the weights' type: PEFT's default would keep it in float32, which is slower on bfloat16 weights.
    return get_peft_model(model, config).to(torch.bfloat16 if dtype == "bf16" else torch.float32)


def train(model: torch.nn.Module, args: argparse.Namespace, samples: list) -> dict:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=4e-3 if args.method == "vera" else 4e-4, weight_decay=0.0)
    model.train()
    rows = itertools.cycle(samples)
    losses, seconds, real, computed = [], 0.0, 0, 0
    for step in range(args.warm + args.steps):
        batches = [list(itertools.islice(rows, args.batch)) for _ in range(args.accumulation)]
        start = time.perf_counter()
        labelled = sum(label != IGNORED for batch in batches for _, labels in batch for label in labels[1:])
        step_loss = 0.0
        for batch in batches:
            inputs = padded(batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "autocast"):
                # With the whole step's count, the mean is over the labelled tokens of the step and not of a batch.
                loss = model(**inputs, num_items_in_batch=labelled).loss
            loss.backward()
            step_loss += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        if step >= args.warm:
            seconds += time.perf_counter() - start
            real += sum(len(ids) - 1 for batch in batches for ids, _ in batch)
            computed += sum(len(batch) * max(len(ids) for ids, _ in batch) for batch in batches)
        losses.append(round(step_loss, 5))
        print(f"step {step + 1}: loss {step_loss:.4f}{' (warm-up)' if step < args.warm else ''}", file=sys.stderr)
    count = args.steps * args.accumulation * args.batch
    return {
        "samples_per_s": round(count / seconds, 4),
        "tokens_per_s": round(real / seconds, 2),
        "peak_GiB": round(peak_gib(), 3),
        "seconds": round(seconds, 2),
        "samples": count,
        "tokens": real,
        "padding": round(1 - real / computed, 3),
        "losses": losses,
        "trained": sum(p.numel() for p in trained),
    }


def peak_gib() -> float:
    """The largest resident memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def check(model: LlamaForCausalLM, path: str) -> None:
    """Compares the base model's loss with that of a reference.json; the tolerance is float32's against float64's."""
    reference = json.loads(Path(path).read_text())
    ids = torch.tensor([reference["input_ids"]])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    difference = abs(loss - reference["base_loss"])
    print(json.dumps({"loss": loss, "reference": reference["base_loss"], "difference": difference}))
    if not difference <= 1e-4:
        sys.exit("the dequantised model is not the reference's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, metavar="GGUF")
    parser.add_argument("--data", metavar="FILE", help="rows of instruction, input, output: a JSON array or JSON lines")
    parser.add_argument("--check", metavar="JSON", help="compare the base loss with a reference.json and stop")
    parser.add_argument("--method", choices=["vera", "lora"], default="vera")
    parser.add_argument("--rows", type=int, default=64, help="the first rows of the file (default %(default)s)")
    parser.add_argument("--rank", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--full", type=int, metavar="N", help="samples of exactly N tokens, the rows end to end: no padding")
    parser.add_argument("--dtype", choices=["f32", "bf16", "autocast"], default="f32", help="f32; bf16: weights and adapter; autocast: float32 weights, bfloat16 products")
    parser.add_argument("--warm", type=int, default=1, help="optimiser steps before the clock starts (default %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps measured (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if not args.check and not args.data:
        parser.error("--data is needed")

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.check:
        return check(load_model(args.model), args.check)
    samples = encode(read_rows(args.data, args.rows), args.model, args.max_length)
    if args.full:
        samples = cut_to(samples, args.full)
    model = adapted(load_model(args.model), args.method, args.rank, args.dtype)
    settings = {k: getattr(args, k) for k in ("method", "rank", "dtype", "batch", "accumulation", "threads", "rows")}
    print(json.dumps(settings | train(model, args, samples) | {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
