#!/usr/bin/env python3
"""Makes the reference of an architecture that the tests of `model` compare with: a folder like those of ../shared/refs/arch.

    .tools/venv/bin/pip install -r tools/requirements.txt
    .tools/venv/bin/python tools/make_reference.py --llama-cpp PATH config.json FOLDER
    VERATUNE_ARCH=FOLDER go test ./model ./vera -run Architecture

config.json is that of a tiny model in transformers' words (a width of 64, 2 to 8 blocks, 320 tokens, windows shorter than the sequences). PATH is the source of a current
llama.cpp, whose converter writes the GGUF; PyPI's llama-cpp-python has one in vendor/llama.cpp of its sdist. docs/architectures.md says what else a new architecture takes.

All weights are random, and no norm or bias is at a neutral value. The adapter is PEFT's VeRA of all linear layers; logits, losses and gradients are computed in float64.
"""

import argparse
import functools
import json
import pathlib
import shutil
import sys
import tempfile

import peft
import torch
import transformers
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

LENGTHS = 48, 33, 21
CONTROL, UNKNOWN, BYTE = 3, 2, 6  # of GGUF's types of tokens


def random_model(folder: pathlib.Path, seed: int) -> torch.nn.Module:
    """Attention is eager, since the other forms leave soft caps out, and so are experts, whose other forms have no float64."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager").float().eval()
    model.config.use_cache = False
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    return model


def convert(llama_cpp: pathlib.Path, folder: pathlib.Path, to: pathlib.Path, name: str) -> None:
    """Has llama.cpp's converter write the GGUF, with a vocabulary of its own in place of a tokenizer's: <unk>, <s>, </s>, the bytes, and words."""
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    def set_vocab(model) -> None:
        size = model.hparams["vocab_size"]
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
        tokens += [f"▁w{i}" for i in range(size - len(tokens))]
        w = model.gguf_writer
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list(tokens)
        w.add_token_scores([-max(0.0, i - 258.0) for i in range(size)])
        w.add_token_types([UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [1] * (size - 259))
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)

    kind = get_model_class(get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT))
    kind.no_mtp = True  # the model has no blocks for speculative decoding
    with torch.inference_mode():
        model = kind(folder, gguf.LlamaFileType.ALL_F32, to, model_name=name)
        for part in (model, getattr(model, "impl", model)):  # some converters hand on to another
            part.set_vocab = functools.partial(set_vocab, part)
        model.write()


def adapted(model: torch.nn.Module, rank: int, seed: int) -> peft.PeftModel:
    linear = {name.split(".")[-1] for name, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not model.get_output_embeddings()}
    model = peft.get_peft_model(model, peft.VeraConfig(r=rank, target_modules=sorted(linear), projection_prng_key=seed, task_type="CAUSAL_LM"))
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vera_lambda_" in name:
                parameter.copy_(0.1 + 0.1 * torch.randn_like(parameter) if "vera_lambda_d" in name else 0.3 * torch.randn_like(parameter))
    return model


def run(model: torch.nn.Module, sequences: list, targets: list) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits after every token, and the sum of the losses."""
    logits, loss = [], 0.0
    for tokens, wanted in zip(sequences, targets):
        out = model(input_ids=torch.tensor([tokens])).logits[0]
        logits.append(out)
        loss = loss + torch.nn.functional.cross_entropy(out, torch.tensor(wanted), ignore_index=-1, reduction="sum")
    return torch.cat(logits), loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=pathlib.Path, help="config.json of the model")
    parser.add_argument("folder", type=pathlib.Path, help="folder to make; its name is the model's")
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, metavar="PATH", help="source of llama.cpp, with its converter")
    parser.add_argument("--rank", type=int, default=24)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shutil.copy(args.config, folder / "config.json")
        model = random_model(folder, args.seed)
        model.save_pretrained(folder)
        shutil.copy(folder / "config.json", args.folder)
        convert(args.llama_cpp.resolve(), folder, args.folder / "model.gguf", f"tiny {args.folder.name}")

    vocabulary = model.config.vocab_size
    sequences = [[1] + torch.randint(259, vocabulary, (n - 1,)).tolist() for n in LENGTHS]
    targets = [[-1] * (n // 3) + s[n // 3 + 1:] + [2] for n, s in zip(LENGTHS, sequences)]
    model.double()
    with torch.no_grad():
        base, base_loss = run(model, sequences, targets)
    model.name_or_path = f"tiny {args.folder.name}"
    model = adapted(model.float(), args.rank, args.seed)
    model.save_pretrained(args.folder / "peft")
    model.double()
    logits, loss = run(model, sequences, targets)
    loss.backward()
    grads = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.requires_grad}
    # An adapter whose gradients are zero would agree with anything.
    if not all(float(g.norm()) > 0 for g in grads.values()):
        sys.exit("a gradient is zero")

    def save(tensors: dict, name: str) -> None:
        save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, args.folder / name)

    save({"base": base, "adapter": logits}, "logits.safetensors")
    save(grads, "grads.safetensors")
    (args.folder / "reference.json").write_text(json.dumps({
        "sequences": sequences, "targets": targets, "base_loss_sum": float(base_loss), "adapter_loss_sum": float(loss), "rank": args.rank, "seed": args.seed,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }))


if __name__ == "__main__":
    main()
