#!/usr/bin/env python3
"""Goldens of tests/model: what transformers and PEFT (fp32, CPU) compute for tiny LLaMA models.

Usage: make_model.py [FOLDER]      (needs torch, transformers, peft, safetensors, numpy)

Weights, adapters and tokens are not stored: both sides make them from the same integer hash (see
uniform() here and in tests/model/tiny.h). Each file model_<name>.safetensors holds the config, the
logits of one batch, its loss, the gradient of every LoRA matrix, and the losses of 50 AdamW steps.
"""
import json
import os
import sys

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

LENGTHS = [19, 1, 33, 11]  # the ragged batch; one token alone predicts nothing
N_BATCH, N_STEP = 4, 50    # training goes round these batches
ADAMW = dict(lr=5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)

COMMON = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=96,
              hidden_size=64, intermediate_size=96, num_attention_heads=4, hidden_act="silu",
              max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

MODELS = {
    "tied": (dict(num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=True,
                  rope_theta=10000.0),
             dict(r=4, alpha=8, rslora=False, targets=LINEARS)),
    "bias": (dict(num_hidden_layers=2, num_key_value_heads=2, head_dim=24, attention_bias=True,
                  tie_word_embeddings=False, rope_theta=10000.0,
                  rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                    high_freq_factor=4.0, original_max_position_embeddings=32)),
             dict(r=3, alpha=6, rslora=True, targets=["q_proj", "v_proj"])),
    "mha": (dict(num_hidden_layers=3, num_key_value_heads=4, tie_word_embeddings=False,
                 rope_theta=500.0, rope_scaling=dict(rope_type="linear", factor=2.0)),
            dict(r=5, alpha=10, rslora=False, targets=["o_proj", "down_proj"])),
}


def words(name, n):
    """n 32-bit words of a stream: FNV-1a of the name, then murmur3's finaliser of a Weyl sequence."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    x = (np.arange(n, dtype=np.uint64) * 0x9E3779B9 + seed) & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> np.uint64(13)
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> np.uint64(16))


def uniform(name, shape, scale):
    """scale * U(-1/2, 1/2) in 24 bits; scale is a power of two, so the value is exact in fp32."""
    u = (words(name, int(np.prod(shape))) >> np.uint64(8)).astype(np.float64) / 2**24 - 0.5
    return (u * scale).astype(np.float32).reshape(shape)


def fill(model):
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        shape = tuple(parameter.shape)
        if name.endswith("norm.weight"):
            value = np.float32(1.0) + uniform(name, shape, 0.25)
        elif "embed_tokens" in name:
            value = uniform(name, shape, 2.0)
        else:
            value = uniform(name, shape, 0.5)
        parameter.copy_(torch.from_numpy(value))


def short(name):
    """base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight -> layers.0.q_proj.A"""
    parts = name.split(".")
    layer = parts.index("layers")
    return f"layers.{parts[layer + 1]}.{parts[layer + 3]}.{parts[layer + 4][-1]}"


def batch(index, vocab):
    return [torch.from_numpy((words(f"tokens.{index}.{i}", n) % np.uint64(vocab)).astype(np.int64))
            for i, n in enumerate(LENGTHS)]


def loss_of(model, sequences):
    """Mean of -log p over all predicted tokens, each sequence alone: no padding is involved."""
    losses, logits = [], []
    for tokens in sequences:
        out = model(input_ids=tokens[None]).logits[0]
        logits.append(out)
        if len(tokens) > 1:
            losses.append(torch.nn.functional.cross_entropy(out[:-1], tokens[1:], reduction="none"))
    return torch.cat(losses).mean(), torch.cat(logits)


def make(name, config, lora):
    config = {**COMMON, **config}
    model = LlamaForCausalLM(LlamaConfig(**config, attn_implementation="eager")).float().eval()
    with torch.no_grad():
        fill(model)
    model = get_peft_model(model, LoraConfig(
        r=lora["r"], lora_alpha=lora["alpha"], use_rslora=lora["rslora"], lora_dropout=0.0,
        target_modules=lora["targets"]))
    adapters = {short(n): p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for key, parameter in adapters.items():
            parameter.copy_(torch.from_numpy(uniform(key, tuple(parameter.shape), 0.25)))

    loss, logits = loss_of(model, batch(0, config["vocab_size"]))
    loss.backward()
    out = {"config": np.frombuffer(json.dumps(config).encode(), np.uint8).copy(),
           "lora": np.array([lora["r"], lora["alpha"], lora["rslora"]]
                            + [t in lora["targets"] for t in LINEARS], np.int32),
           "logits": logits.detach().numpy(), "loss": np.array([loss.item()], np.float32)}
    for key, parameter in adapters.items():
        out["grad." + key] = parameter.grad.numpy().copy()

    optimizer = torch.optim.AdamW(adapters.values(), **ADAMW)
    losses = []
    for step in range(N_STEP):
        optimizer.zero_grad()
        loss, _ = loss_of(model, batch(step % N_BATCH, config["vocab_size"]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    out["losses"] = np.array(losses, np.float32)
    print(name, "loss", losses[0], "->", losses[-1])
    return out


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.manual_seed(0)
    for name, (config, lora) in MODELS.items():
        save_file(make(name, config, lora), os.path.join(folder, f"model_{name}.safetensors"))


if __name__ == "__main__":
    main()
