#!/usr/bin/env python3
"""Trains PEFT's VeRA or LoRA on the rows and the model of `veratune bench train`, and prints its speed as one JSON object.

    tools/peft_bench.py --model M.gguf --data rows.json --rows 64 --rank 1024 --dtype f32
    tools/peft_bench.py --model M.gguf --check reference.json
    tools/peft_bench.py --model M.gguf --data rows.json --rows 512 --write-tokens tokens.json
    tools/peft_bench.py --random 7b --tokens tokens.json --device cuda --dtype bf16 --nf4 --checkpointing off on

The GGUF's own tensors are dequantised into a transformers LlamaForCausalLM, and its own vocabulary makes the tokens, so both programs
start from the same numbers and read the same text. Nothing is fetched from a network. The first --rows rows are taken in the file's
order, in the Alpaca template, padded to the longest of their batch; a step is --accumulation batches and one AdamW update. tokens_per_s
counts what had to be computed: a row's tokens without padding, and without its last one, which is predicted but predicts nothing.

--random takes a model of that shape with random weights, made on the device, in place of a file; its rows are --tokens, modulo its vocabulary. --nf4 quantises the
adapted layers as QLoRA does, with bitsandbytes. Each setting of --checkpointing is measured on its own and printed when it is done.

tools/requirements.txt lists the packages.
"""

import argparse
import itertools
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from peft import LoraConfig, VeraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
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

# Llama-2-13B and 7B, SmolLM2-135M, and one to try the program with.
SHAPES = {
    "135m": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
    "13b": {"vocab_size": 32000, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "7b": {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "tiny": {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of attn_q or attn_k in transformers' order: GGUF interleaves the two halves that rope rotates together."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def load_model(path: str) -> torch.nn.Module:
    """The GGUF's model in float32, every tensor dequantised as ggml does. transformers itself loads others than Llama."""
    import gguf  # a random model does without

    reader = gguf.GGUFReader(path)

    def value(key, default=None):
        field = reader.fields.get(key)
        return default if field is None else field.contents()

    architecture = value("general.architecture")
    if architecture != "llama":
        folder, name = os.path.split(os.path.abspath(path))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, local_files_only=True)
        model.config.use_cache = False
        return model
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


def random_model(shape: str, device: str, dtype: torch.dtype, nf4: bool) -> LlamaForCausalLM:
    """A Llama of random weights, made a block at a time on the device, so that no more than one stands beside its quantised form."""
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, rms_norm_eps=1e-5, use_cache=False)
    blocks, config.num_hidden_layers = config.num_hidden_layers, 0
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(config)
        config = model.config
        for i in range(blocks):
            block = LlamaDecoderLayer(config, i)
            if nf4:
                quantize(block, dtype)
            model.model.layers.append(block)
    torch.set_default_dtype(default)
    config.num_hidden_layers = blocks
    model.is_loaded_in_4bit = nf4  # older PEFT asks for it
    return model


def quantize(block: torch.nn.Module, dtype: torch.dtype) -> None:
    """Exchanges the block's linear layers for NF4 with quantised scales, which are multiplied in dtype."""
    import bitsandbytes as bnb

    for part in (block.self_attn, block.mlp):
        for name, linear in list(part.named_children()):
            if name not in TARGETS:
                continue
            weight, device = linear.weight, linear.weight.device
            with torch.device("meta"):
                exchanged = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True)
            exchanged.weight = bnb.nn.Params4bit(weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True).to(device)
            setattr(part, name, exchanged)


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


def write_tokens(path: str, samples: list) -> None:
    """As `veratune data show --json` writes them."""
    lines = [{"samples": [{"tokens": ids, "learnt": [label != IGNORED for label in labels]}]} for ids, labels in samples]
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_tokens(path: str, count: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    samples = []
    for line in Path(path).read_text().splitlines()[:count]:
        for sample in json.loads(line)["samples"]:
            ids = [i % vocabulary for i in sample["tokens"]]
            samples.append((ids, [i if learnt else IGNORED for i, learnt in zip(ids, sample["learnt"])]))
    return samples


def cut_to(samples: list, length: int) -> list:
    """The same tokens end to end, in samples of exactly that length: batches without padding."""
    ids = list(itertools.chain.from_iterable(ids for ids, _ in samples))
    labels = list(itertools.chain.from_iterable(labels for _, labels in samples))
    return [(ids[i : i + length], labels[i : i + length]) for i in range(0, len(ids) - length + 1, length)]


def padded(batch: list, device: str) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in batch)

    def fill(rows, with_):
        return torch.tensor([row + [with_] * (longest - len(row)) for row in rows], device=device)

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
            inputs = padded(batch, args.device)
            with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "autocast"):
                # With the whole step's count, the mean is over the labelled tokens of the step and not of a batch.
                loss = model(**inputs, num_items_in_batch=labelled).loss
            loss.backward()
            step_loss += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        step_loss = step_loss.item()  # waits for the device
        if step >= args.warm:
            seconds += time.perf_counter() - start
            real += sum(len(ids) - 1 for batch in batches for ids, _ in batch)
            computed += sum(len(batch) * max(len(ids) for ids, _ in batch) for batch in batches)
        losses.append(round(step_loss, 5))
        print(f"step {step + 1}: loss {step_loss:.4f}, {time.perf_counter() - start:.2f} s{' (warm-up)' if step < args.warm else ''}", file=sys.stderr, flush=True)
    count = args.steps * args.accumulation * args.batch
    return {
        "samples_per_s": round(count / seconds, 4),
        "tokens_per_s": round(real / seconds, 2),
        **memory(args.device),
        "seconds": round(seconds, 2),
        "samples": count,
        "tokens": real,
        "padding": round(1 - real / computed, 3),
        "losses": losses,
        "trained": sum(p.numel() for p in trained),
    }


def memory(device: str) -> dict:
    """The most that this process has had: resident, or of the device in tensors, and what the driver says is in use there, the allocator's store included."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return {
            "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 3),
            "reserved_GiB": round(torch.cuda.max_memory_reserved() / 2**30, 3),
            "driver_GiB": round((total - free) / 2**30, 3),
        }
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)}


def measure(model: torch.nn.Module, args: argparse.Namespace, samples: list, checkpointing: str) -> dict:
    """What train reports, or the error that it ends in: one setting that fails takes no other with it."""
    if checkpointing == "on":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if args.device == "cuda":
        model.zero_grad()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        return train(model, args, samples)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]} | memory(args.device)
    finally:
        if checkpointing == "on":
            model.gradient_checkpointing_disable()


def check_loss(model: torch.nn.Module, samples: list, ours: float) -> None:
    """Compares the mean loss of the rows' labelled tokens."""
    total, count = 0.0, 0
    with torch.no_grad():
        for ids, labels in samples:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=IGNORED, reduction="sum").item()
            count += sum(label != IGNORED for label in labels[1:])
    loss = total / count
    print(json.dumps({"loss": loss, "tokens": count, "difference": abs(loss - ours) / loss}))
    if not abs(loss - ours) <= 1e-3 * loss:
        sys.exit(f"the loss is {loss}, not {ours}")


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
    parser.add_argument("--model", metavar="GGUF")
    parser.add_argument("--random", choices=list(SHAPES), help="a model of random weights in place of a file")
    parser.add_argument("--data", metavar="FILE", help="rows of instruction, input, output: a JSON array or JSON lines")
    parser.add_argument("--tokens", metavar="JSON", help="rows that --write-tokens or `veratune data show --json` wrote, in place of --data")
    parser.add_argument("--write-tokens", metavar="JSON", help="write the rows' tokens and stop")
    parser.add_argument("--check", metavar="JSON", help="compare the base loss with a reference.json and stop")
    parser.add_argument("--loss", type=float, help="compare the base loss on the rows with this and stop")
    parser.add_argument("--method", choices=["vera", "lora"], default="vera")
    parser.add_argument("--rows", type=int, default=64, help="the first rows of the file (default %(default)s)")
    parser.add_argument("--rank", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--full", type=int, metavar="N", help="samples of exactly N tokens, the rows end to end: no padding")
    parser.add_argument("--dtype", choices=["f32", "bf16", "autocast"], default="f32", help="f32; bf16: weights and adapter; autocast: float32 weights, bfloat16 products")
    parser.add_argument("--nf4", action="store_true", help="quantise the adapted layers of --random to NF4")
    parser.add_argument("--checkpointing", nargs="+", choices=["off", "on"], default=["off"], help="compute blocks again in the backward pass; each is measured")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--warm", type=int, default=1, help="optimiser steps before the clock starts (default %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps measured (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if (args.model is None) == (args.random is None):
        parser.error("one of --model and --random is needed")
    if args.random and not args.tokens or args.model and not (args.check or args.data or args.tokens):
        parser.error("--data or --tokens is needed, --tokens with --random")

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.check:
        return check(load_model(args.model), args.check)
    if args.tokens:
        samples = read_tokens(args.tokens, args.rows, SHAPES[args.random]["vocab_size"] if args.random else sys.maxsize)
    else:
        samples = encode(read_rows(args.data, args.rows), args.model, args.max_length)
    if args.write_tokens:
        return write_tokens(args.write_tokens, samples)
    if args.loss:
        return check_loss(load_model(args.model), samples, args.loss)
    if args.full:
        samples = cut_to(samples, args.full)
    start = time.perf_counter()
    if args.random:
        model = random_model(args.random, args.device, torch.bfloat16 if args.dtype == "bf16" else torch.float32, args.nf4)
    else:
        model = load_model(args.model).to(args.device)
    model = adapted(model, args.method, args.rank, args.dtype).to(args.device)
    settings = {k: getattr(args, k) for k in ("method", "rank", "dtype", "batch", "accumulation", "threads", "rows")}
    if args.random:
        settings |= {"random": args.random, "nf4": args.nf4}
    if args.device == "cuda":
        settings["device"] = torch.cuda.get_device_name()
    print(f"model: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    for checkpointing in args.checkpointing:
        print(json.dumps(settings | {"checkpointing": checkpointing} | measure(model, args, samples, checkpointing) | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
