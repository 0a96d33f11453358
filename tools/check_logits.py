#!/usr/bin/env python3
"""Compares logits with those of a current llama.cpp, which PyPI's llama-cpp-python has, of a GGUF model and of it with a LoRA export.

    .tools/venv/bin/pip install llama-cpp-python
    go test ./model -run ArchitecturesInCurrentLlama -v

The test runs this script, with the interpreter that PYTHON names (default .tools/venv/bin/python), for the references of all architectures; VERATUNE_ARCH lists others.
LLAMA_CPP_LIB_PATH names a folder with a libllama.so that is built already. By hand:

    tools/check_logits.py --model M.gguf --sequences FILE.json --logits FILE [--lora LORA.gguf] [--tolerance 4e-3]

FILE.json has "sequences", lists of token ids, as a reference.json has; --logits are little-endian float32 numbers, those of the vocabulary for each token in turn. Keys and values
are kept in float32. Prints a JSON line; exits with 1 where they differ.
"""

import argparse
import json
import sys

import llama_cpp as llama
import numpy as np


def logits(model: str, lora: str | None, sequences: list[list[int]]) -> np.ndarray:
    """Those after every token of all sequences, one after the other."""
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    weights = llama.llama_model_load_from_file(model.encode(), params)
    if not weights:
        sys.exit(f"{model}: llama.cpp does not load it")
    size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(weights))
    adapter = llama.llama_adapter_lora_init(weights, lora.encode()) if lora else None
    if lora and not adapter:
        sys.exit(f"{lora}: llama.cpp does not load it")
    rows = []
    for tokens in sequences:
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = len(tokens)
        params.type_k = params.type_v = 0  # float32
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = llama.llama_init_from_model(weights, params)
        if adapter:
            one = (llama.llama_adapter_lora_p_ctypes * 1)(adapter)
            llama.llama_set_adapters_lora(context, one, 1, (llama.ctypes.c_float * 1)(1.0))
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        if llama.llama_decode(context, batch):
            sys.exit(f"{model}: llama.cpp does not compute it")
        rows += [np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (size,)).copy() for i in range(len(tokens))]
        llama.llama_batch_free(batch)
        llama.llama_free(context)
    return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, metavar="GGUF")
    parser.add_argument("--lora", metavar="GGUF", help="what veratune export --to lora wrote")
    parser.add_argument("--sequences", required=True, metavar="JSON")
    parser.add_argument("--logits", required=True, metavar="FILE", help="those to compare with")
    parser.add_argument("--tolerance", type=float, default=4e-3, help="the largest difference that is allowed (default %(default)s)")
    args = parser.parse_args()

    with open(args.sequences) as f:
        sequences = json.load(f)["sequences"]
    theirs = logits(args.model, args.lora, sequences)
    ours = np.fromfile(args.logits, "<f4").reshape(theirs.shape)
    difference = float(np.abs(ours - theirs).max())
    print(json.dumps({"model": args.model, "lora": args.lora, "difference": difference, "agrees": difference <= args.tolerance}))
    sys.exit(not difference <= args.tolerance)


if __name__ == "__main__":
    main()
