"""Tokens per second of batched generation by transformers (fp32, bf16) and llama.cpp (Q8_0), CPU.

One line of JSON per peer and batch size. Usage: peer_generate.py [--batch 1,16] [--prompt 128] [--new 128]
"""

import argparse
import json
import os
import subprocess
import sys
import time

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def report(peer, batch, n_new, seconds):
    print(json.dumps({"peer": peer, "sequences": batch,
                      "tokens_per_second": round(batch * n_new / seconds, 1)}), flush=True)


def run_transformers(dtype_name, batch, n_prompt, n_new):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        os.environ["QUIPU_REAL"], gguf_file=FILE, dtype=getattr(torch, dtype_name)
    ).eval()
    ids = torch.randint(100, 40000, (batch, n_prompt))
    options = dict(do_sample=True, top_k=0, min_new_tokens=n_new, max_new_tokens=n_new)
    with torch.inference_mode():
        model.generate(ids, do_sample=True, max_new_tokens=4)
        start = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        report(f"transformers {dtype_name}", batch, n_new, time.perf_counter() - start)


def run_llama_cpp(batch, n_prompt, n_new):
    """One llama_decode per step over all sequences, as llama.cpp's batched example does."""
    import numpy as np
    import llama_cpp as ll

    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(
        os.path.join(os.environ["QUIPU_REAL"], "SmolLM2-135M-Instruct.Q8_0.gguf").encode(),
        ll.llama_model_default_params(),
    )
    params = ll.llama_context_default_params()
    params.n_ctx = batch * (n_prompt + n_new)
    params.n_batch = params.n_ubatch = max(512, batch * n_prompt)
    params.n_seq_max = batch
    params.n_threads = params.n_threads_batch = os.cpu_count()
    context = ll.llama_init_from_model(model, params)
    n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    rng = np.random.default_rng(0)
    b = ll.llama_batch_init(batch * n_prompt, 0, 1)

    def fill(tokens, positions, logits):
        b.n_tokens = len(tokens)
        for i, (token, position, sequence) in enumerate(zip(tokens, positions, logits[1])):
            b.token[i] = int(token)
            b.pos[i] = position
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = sequence
            b.logits[i] = logits[0][i]

    def run():
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        prompt = rng.integers(100, 40000, size=(batch, n_prompt))
        tokens, positions, sequences, wanted = [], [], [], []
        for s in range(batch):
            tokens += list(prompt[s])
            positions += list(range(n_prompt))
            sequences += [s] * n_prompt
            wanted += [0] * (n_prompt - 1) + [1]
        fill(tokens, positions, (wanted, sequences))
        assert ll.llama_decode(context, b) == 0
        rows = [(s + 1) * n_prompt - 1 for s in range(batch)]
        for step in range(n_new):
            new = []
            for row in rows:
                logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(context, row), (n_vocab,))
                new.append(int(np.argmax(logits)))
            fill(new, [n_prompt + step] * batch, ([1] * batch, list(range(batch))))
            assert ll.llama_decode(context, b) == 0
            rows = list(range(batch))

    run()
    start = time.perf_counter()
    run()
    report("llama.cpp Q8_0", batch, n_new, time.perf_counter() - start)


def make_q8_0(folder):
    """llama.cpp's own quantiser, from the Q4_1 file, so that the same numbers are computed in Q8_0."""
    import llama_cpp as ll

    target = os.path.join(folder, "SmolLM2-135M-Instruct.Q8_0.gguf")
    if not os.path.exists(target):
        params = ll.llama_model_quantize_default_params()
        params.ftype = ll.LLAMA_FTYPE_MOSTLY_Q8_0
        params.allow_requantize = True
        assert ll.llama_model_quantize(os.path.join(folder, FILE).encode(), target.encode(), params) == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--peers", default="bfloat16,float32,llama.cpp")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        for batch in map(int, args.batch.split(",")):
            if args.one == "llama.cpp":
                run_llama_cpp(batch, args.prompt, args.new)
            else:
                run_transformers(args.one, batch, args.prompt, args.new)
        return
    for peer in args.peers.split(","):
        if peer == "llama.cpp":
            make_q8_0(os.environ["QUIPU_REAL"])
        subprocess.run([sys.executable, __file__, "--one", peer, "--batch", args.batch, "--prompt",
                        str(args.prompt), "--new", str(args.new)], check=False)


if __name__ == "__main__":
    main()
