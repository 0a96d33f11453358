"""Loads a GGUF of any architecture that transformers has, with the config.json of the model that it was converted from.

Undoes what llama.cpp's converter does to the weights, in float32. gguf-py knows which tensor is which parameter.
"""

import itertools
import sys

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from peft_bench import unpermuted

# Whose rows of q and k are put in the order of neighbours, and whose norms are kept as 1 + w.
REORDERED = ("llama", "granite", "mistral3", "smollm3")
NORMS_OF_ONE = ("gemma2", "gemma3", "qwen35")


def regrouped(name: str, data: np.ndarray, config: AutoConfig) -> np.ndarray:
    """A weight of a delta net, with the value heads of each key head side by side: the converter has those of all key heads in turn. It also takes the exponent of A."""
    kind = name.split(".")[4]
    if kind == "norm":
        return data
    data = data.T if kind == "out_proj" else data
    skip = 2 * config.linear_num_key_heads * config.linear_key_head_dim if kind in ("in_proj_qkv", "conv1d") else 0
    dim = 1 if kind in ("in_proj_a", "in_proj_b", "dt_bias", "A_log") else config.linear_value_head_dim
    heads = data[skip:].reshape(-1, config.linear_num_key_heads, dim, *data.shape[1:]).swapaxes(0, 1)
    data = np.concatenate([data[:skip], heads.reshape(data[skip:].shape)])
    return data.T if kind == "out_proj" else np.log(-data) if kind == "A_log" else data


def load_described(path: str, folder: str) -> torch.nn.Module:
    """The GGUF's model as the config.json of a folder describes it. Attention is eager: the other forms leave soft caps out; other forms of experts refuse odd sizes."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    tensors = {t.name: t for t in reader.tensors}
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager").float()
    model.config.use_cache = False
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    used = {name for name in tensors if name.startswith("rope_")}  # factors, which config.json has as well
    conv = {name + ".weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}

    def take(name: str) -> np.ndarray:
        name = name if name in tensors else name + ".weight"  # of what has no suffix in transformers
        used.add(name)
        return gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)

    with torch.no_grad():
        scalars = ((name, b) for name, b in model.named_buffers() if name.endswith("layer_scalar"))
        for name, parameter in itertools.chain(model.named_parameters(), scalars):
            if ".experts." in name:  # of all experts in one
                block, suffix = name.split(".")[2], "bias" if name.endswith("_bias") else "weight"
                kinds = ("gate", "up") if "gate_up_proj" in name else ("down",)
                parts = [take(f"blk.{block}.ffn_{kind}_exps.{suffix}") for kind in kinds]
                data = np.concatenate(parts, axis=1)
                if architecture == "gpt-oss":  # a row of gate and one of up in turn, and matrices as x·W has them
                    data = np.stack(parts, axis=2).reshape(data.shape)
                    data = data.swapaxes(1, 2) if suffix == "weight" else data
            else:
                data = take(names.get_name(name.replace(".dt_bias", ".dt_proj.bias"), try_suffixes=(".weight", ".bias")))
            module = name.split(".")[-2]
            if architecture in REORDERED and module in ("q_proj", "k_proj"):
                heads = config.num_attention_heads if module == "q_proj" else config.num_key_value_heads
                data = unpermuted(data.reshape(len(data), -1), heads).reshape(data.shape)
            elif ".linear_attn." in name:
                data = regrouped(name, data, config)
            elif name in conv:
                data = data.T
            elif architecture in NORMS_OF_ONE and name.endswith("norm.weight"):
                data = data - 1
            parameter.copy_(torch.tensor(data).reshape(parameter.shape))  # convolutions have an axis of one channel more
    if left := set(tensors) - used:
        sys.exit(f"{path}: no place for {', '.join(sorted(left))}")
    return model
