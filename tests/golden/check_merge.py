#!/usr/bin/env python3
"""By hand: what quipu-merge and the adapter writer produce, judged by transformers and PEFT.

    check_merge.py FOLDER-OF-QUIPU-PROGRAMS MODEL.gguf WORK-FOLDER

Makes a random adapter with PEFT, merges it with quipu-merge in every way, and compares: the logits of
the HF folder with PEFT's own merge, the tokenizer's ids with those transformers reads from the GGUF
file, the adapter that Quipu wrote with the one it read, and the GGUF LoRA tensor by tensor.
"""
import os
import pathlib
import subprocess
import sys

import gguf
import numpy as np
import peft
import torch
import transformers

programs, model_path, work = (pathlib.Path(p) for p in sys.argv[1:4])
work.mkdir(parents=True, exist_ok=True)
TEXTS = ["Once upon a time there was a fox.", "def f(x):\n    return x ** 2  # 1234567\n",
         "Straße, naïve, 日本語, 🙂 <|im_start|>user\nHi<|im_end|>\n", "  leading and   inner   spaces \n\n"]


def run(*arguments):
    print("$", *arguments)
    subprocess.run([str(a) for a in arguments], check=True)


def load_gguf(path):
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32)


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def compare(name, a, b, bound):
    worst = (a - b).abs().max().item()
    print(f"{name}: max |difference| {worst:.3g} (bound {bound:g})")
    assert worst <= bound


def make_adapter(folder, use_rslora):
    torch.manual_seed(1)
    config = peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, use_rslora=use_rslora,
                             target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                             "up_proj", "down_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(load_gguf(model_path), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    return model


def check_gguf_lora(path, adapter):
    """Undo llama.cpp's permutation and compare with PEFT's tensors."""
    tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}
    state = peft.utils.load_peft_weights(adapter, device="cpu")
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
             "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    for key, value in state.items():
        parts = key.split(".")
        layer, module, matrix = parts[4], parts[6], parts[7]
        stored = tensors.pop(f"blk.{layer}.{names[module]}.weight.{matrix.lower()}")
        value = value.numpy()
        if module in ("q_proj", "k_proj") and matrix == "lora_B":
            heads = value.shape[0] // 64
            value = value.reshape(heads, 2, 32, -1).swapaxes(1, 2).reshape(value.shape)
        assert np.array_equal(stored, value), key
    assert not tensors
    print("GGUF LoRA: all tensors equal")


base32, base8 = work / "base-fp32.h5", work / "base-int8.h5"
run(programs / "quipu-import", "--precision", "fp32", model_path, base32)
run(programs / "quipu-import", model_path, base8)
tokenizer = transformers.AutoTokenizer.from_pretrained(model_path.parent, gguf_file=model_path.name)
for use_rslora in (False, True):
    adapter = work / f"adapter-{use_rslora}"
    trained = make_adapter(adapter, use_rslora)
    ids = tokenizer(TEXTS[0] + TEXTS[1]).input_ids
    expected = logits(trained.eval(), ids)
    for out in ("peft", "hf", "hf16", "hf8", "merged.h5", "lora.gguf"):
        subprocess.run(["rm", "-rf", str(work / out)], check=True)
    run(programs / "quipu-merge", "--to", "peft", base32, adapter, work / "peft")
    run(programs / "quipu-merge", "--to", "hf", "--dtype", "fp32", base32, adapter, work / "hf")
    run(programs / "quipu-merge", "--to", "hf", "--onto", model_path, base8, adapter, work / "hf16")
    run(programs / "quipu-merge", "--to", "hf", "--dtype", "fp32", base8, adapter, work / "hf8")
    run(programs / "quipu-merge", base8, adapter, work / "merged.h5")
    run(programs / "quipu-merge", "--to", "gguf-lora", base8, adapter, work / "lora.gguf")
    again = peft.PeftModel.from_pretrained(load_gguf(model_path), work / "peft").eval()
    compare("adapter written by Quipu, in PEFT", logits(again, ids), expected, 1e-5)
    for name, dtype, bound in (("hf", torch.float32, 2e-3), ("hf16", torch.bfloat16, 2.0),
                               ("hf8", torch.float32, 10.0)):
        merged = transformers.AutoModelForCausalLM.from_pretrained(work / name, dtype=torch.float32)
        found = logits(merged.eval(), ids)
        compare(f"merged folder {name}", found, expected, bound)
        loss = torch.nn.functional.cross_entropy
        target = torch.tensor(ids[1:])
        print(f"  loss {loss(found[:-1], target):.5f}, PEFT {loss(expected[:-1], target):.5f}")
    check_gguf_lora(work / "lora.gguf", adapter)
    ours = transformers.AutoTokenizer.from_pretrained(work / "hf")
    for text in TEXTS:
        assert ours(text).input_ids == tokenizer(text).input_ids, text
        assert ours.decode(ours(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids), text
    chat = [{"role": "user", "content": "Hi"}]
    assert ours.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)
    print("tokenizer: same ids")
print("all well")
