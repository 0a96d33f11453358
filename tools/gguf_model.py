"""Loads a GGUF of any architecture that transformers has, with the config.json of the model that it was converted from.

Undoes what llama.cpp's converter does to the weights, in float32. gguf-py knows which tensor is which parameter.
"""

import sys

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from peft_bench import unpermuted

# Whose rows of q and k are put in the order of neighbours, and whose norms are kept as 1 + w.
REORDERED = ("llama", "granite", "mistral3", "smollm3")
NORMS_OF_ONE = ("gemma2", "gemma3")


def load_described(path: str, folder: str) -> torch.nn.Module:
    """The GGUF's model as the config.json of a folder describes it. Attention is eager: the other forms leave soft caps out."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    tensors = {t.name: t for t in reader.tensors}
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    model.config.use_cache = False
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    used = {name for name in tensors if name.startswith("rope_")}  # factors, which config.json has as well
    conv = {name + ".weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}

    def take(name: str) -> np.ndarray:
        used.add(name)
        return gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name:  # of all experts in one
                block = name.split(".")[2]
                kinds = ("gate", "up") if name.endswith("gate_up_proj") else ("down",)
                data = np.concatenate([take(f"blk.{block}.ffn_{kind}_exps.weight") for kind in kinds], axis=1)
            else:
                data = take(names.get_name(name, try_suffixes=(".weight", ".bias")))
            heads = {"q_proj": config.num_attention_heads, "k_proj": getattr(config, "num_key_value_heads", 0)}.get(name.split(".")[-2], 0)
            if heads and architecture in REORDERED:
                data = unpermuted(data.reshape(len(data), -1), heads).reshape(data.shape)
            elif name in conv:
                data = data.T
            elif architecture in NORMS_OF_ONE and name.endswith("norm.weight"):
                data = data - 1
            parameter.copy_(torch.tensor(data))
    if left := set(tensors) - used:
        sys.exit(f"{path}: no place for {', '.join(sorted(left))}")
    return model
