#!/usr/bin/env python3
"""The model's bars on a real model: logits, loss and LoRA gradients against transformers and PEFT on
the fp32 weights, and the distance of every other precision from fp32.

The peers compute in double: on SmolLM2-135M their own fp32 gradients stand up to 1.3e-3 (relative L2)
away from that, Quipu's 2.4e-5.

Usage: compare_model.py MODEL.gguf POSTS.xml.gz BIN WORK
BIN holds quipu-import and model_driver; WORK keeps the imported bases and the intermediate files.
Needs torch, transformers, peft, gguf, safetensors, numpy. Exit code 1 when a bar is missed.
"""
import gzip
import html
import os
import re
import subprocess
import sys

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

N_TEXT, N_HELD_OUT, LENGTH = 8, 32, 512  # texts for the peers, texts for the other precisions
# name: precision of the base and of its LM head, compute, activation, gradient, bar of perplexity, bar
# of the cosine
MODES = {
    "fp32": ("fp32 fp32", "fp32", "int8", "int8", None, None),
    "bf16": ("bf16 bf16", "bf16", "int8", "int8", 0.002, None),
    "int8": ("int8 int8", "bf16", "int8", "int8", 0.01, 0.99),
    "int8, bf16 head": ("int8 bf16", "bf16", "int8", "int8", 0.01, 0.99),
    "int8, bf16 gradient": ("int8 int8", "bf16", "int8", "bf16", 0.01, 0.99),
    "int8 weights only": ("int8 int8", "bf16", "bf16", "bf16", 0.005, None),
    "llm_int8": ("llm_int8 bf16", "bf16", "int8", "int8", 0.015, 0.97),
    "llm_int8 weights only": ("llm_int8 bf16", "bf16", "bf16", "bf16", 0.005, None),
}
failed = []


def bar(name, value, limit, below=True):
    ok = value <= limit if below else value >= limit
    print(f"{'ok  ' if ok else 'MISS'} {name}: {value:.6g} ({'<=' if below else '>='} {limit:g})",
          flush=True)
    if not ok:
        failed.append(name)


def texts(posts, tokenizer):
    """N_HELD_OUT x LENGTH tokens of the last posts of a dump (bodies as plain text)."""
    with gzip.open(posts, "rt", encoding="utf-8") as dump:
        bodies = re.findall(r' Body="([^"]*)"', dump.read())
    rows = []
    for body in reversed(bodies):
        text = html.unescape(re.sub(r"<[^>]*>", "", html.unescape(body)))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= LENGTH:
            rows.append(ids[:LENGTH])
        if len(rows) == N_HELD_OUT:
            return np.array(rows, np.int32)
    raise SystemExit("too few long posts")


def short(name):
    parts = name.split(".")
    at = parts.index("layers")
    return f"{parts[at + 1]}.{parts[at + 3]}.{parts[at + 4][-1]}"


def reference(gguf, posts, work):
    """Logits of the model alone, then loss and gradients with an adapter that is not zero."""
    folder, file = os.path.split(os.path.realpath(gguf))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    tokens = texts(posts, tokenizer)
    save_file({"tokens": tokens}, f"{work}/held-out.safetensors")
    tokens = tokens[:N_TEXT].copy()
    save_file({"tokens": tokens}, f"{work}/tokens.safetensors")
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0,
                                             target_modules=["q_proj", "v_proj"]))
    params = {short(n): p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in params.items():
            if name.endswith(".B"):
                p.normal_(std=0.005)
    model.save_pretrained(f"{work}/adapter")
    model.double()
    logits = np.lib.format.open_memmap(f"{work}/logits.npy", "w+", np.float32,
                                       (N_TEXT, LENGTH, model.config.vocab_size))
    loss = 0.0
    for i, row in enumerate(torch.from_numpy(tokens.astype(np.int64))):
        out = model(input_ids=row[None]).logits[0]
        part = torch.nn.functional.cross_entropy(out[:-1], row[1:], reduction="sum")
        part = part / (N_TEXT * (LENGTH - 1))
        part.backward()
        loss += part.item()
        logits[i] = out.detach().float().numpy()
    grads = {n: p.grad.float().numpy() for n, p in params.items()}
    save_file({**grads, "loss": np.array([loss])}, f"{work}/reference.safetensors")


def run(binaries, work, name, gguf, tokens, logits=None):
    """Loss and LoRA gradients of a mode on WORK/TOKENS.safetensors."""
    kinds, compute, activation, gradient = MODES[name][:4]
    precision, head = kinds.split()
    base, out = f"{work}/{precision}-{head}.h5", f"{work}/result.safetensors"
    if not os.path.exists(base):
        subprocess.run([f"{binaries}/quipu-import", "--precision", precision, "--lm-head", head,
                        gguf, base],
                       check=True)
    subprocess.run([f"{binaries}/model_driver", base, compute, activation, gradient,
                    f"{work}/adapter", f"{work}/{tokens}.safetensors", out]
                   + ([logits] if logits else []), check=True)
    result = load_file(out)
    logprob = result.pop("logprob")
    return -float(logprob[:, :-1].astype(np.float64).mean()), result


def compare_fp32(binaries, work, gguf):
    """The reference mode against the peers."""
    loss, grads = run(binaries, work, "fp32", gguf, "tokens", f"{work}/logits.raw")
    expected = load_file(f"{work}/reference.safetensors")
    bar("loss, relative", abs(loss / float(expected.pop("loss")[0]) - 1.0), 1e-5)
    errors = {n: np.linalg.norm(grads[n] - g) / np.linalg.norm(g) for n, g in expected.items()}
    worst = max(errors, key=errors.get)
    bar(f"LoRA gradients, relative L2, worst ({worst})", errors[worst], 1e-3)
    theirs = np.load(f"{work}/logits.npy", mmap_mode="r")
    ours = np.memmap(f"{work}/logits.raw", np.float32, "r", shape=theirs.shape)
    diff = max(float(np.abs(ours[i] - theirs[i]).max()) for i in range(N_TEXT))
    same = np.mean([ours[i].argmax(-1) == theirs[i].argmax(-1) for i in range(N_TEXT)])
    bar("logits, max |difference|", diff, 2e-3)
    bar("logits, same argmax", same, 0.999, below=False)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def main():
    gguf, posts, binaries, work = sys.argv[1:5]
    os.makedirs(work, exist_ok=True)
    if not os.path.exists(f"{work}/reference.safetensors"):
        reference(gguf, posts, work)
    compare_fp32(binaries, work, gguf)
    loss32, grads32 = run(binaries, work, "fp32", gguf, "held-out")
    keys = sorted(grads32)
    for name, (_, _, _, _, ppl_bar, cosine_bar) in MODES.items():
        if name == "fp32":
            continue
        loss, grads = run(binaries, work, name, gguf, "held-out")
        flat, flat32 = (np.concatenate([g[k].ravel() for k in keys]).astype(np.float64)
                        for g in (grads, grads32))
        bar(f"{name}: perplexity against fp32", abs(np.exp(loss - loss32) - 1.0), ppl_bar)
        if cosine_bar:
            bar(f"{name}: gradient cosine", cosine(flat, flat32), cosine_bar, below=False)
        worst = min(cosine(grads[k].ravel(), grads32[k].ravel()) for k in keys)
        print(f"     {name}: perplexity {np.exp(loss):.4f} (fp32 {np.exp(loss32):.4f}), gradient "
              f"cosine {cosine(flat, flat32):.5f}, worst tensor {worst:.4f}", flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
