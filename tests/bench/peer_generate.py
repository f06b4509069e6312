"""Tokens per second of batched generation by transformers and llama.cpp (Q8_0), on the CPU.

A line per peer and batch size: name, sequences, new tokens/s of the best run, separated by tabs. The
time is that of prompts and answers; each peer runs in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import time

from peer_model import FILE, load


def report(peer, batch, n_new, seconds):
    print(peer, batch, round(batch * n_new / seconds, 1), sep="\t", flush=True)


def run_transformers(dtype_name, batch, n_prompt, n_new, repeat):
    import torch

    model = load(getattr(torch, dtype_name)).eval()
    ids = torch.randint(100, 40000, (batch, n_prompt))
    mask = torch.ones_like(ids)
    options = dict(do_sample=True, top_k=0, min_new_tokens=n_new, max_new_tokens=n_new)

    def run():
        start = time.perf_counter()
        out = model.generate(ids, attention_mask=mask, **options)
        assert out.shape == (batch, n_prompt + n_new), out.shape
        return time.perf_counter() - start

    with torch.inference_mode():
        model.generate(ids, attention_mask=mask, do_sample=True, max_new_tokens=4)
        report(f"transformers {dtype_name}", batch, n_new, min(run() for _ in range(repeat)))


def run_llama_cpp(batch, n_prompt, n_new, repeat):
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
    params.n_batch = max(512, batch * n_prompt)
    params.n_seq_max = batch
    params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
    context = ll.llama_init_from_model(model, params)
    n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    rng = np.random.default_rng(0)
    b = ll.llama_batch_init(batch * n_prompt, 0, 1)

    def decode(tokens, positions, sequences, wanted):
        """Fills the batch and computes it; returns the seconds of llama_decode itself."""
        b.n_tokens = len(tokens)
        for i, (token, position, sequence, want) in enumerate(zip(tokens, positions, sequences, wanted)):
            b.token[i] = int(token)
            b.pos[i] = position
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = sequence
            b.logits[i] = want
        start = time.perf_counter()
        assert ll.llama_decode(context, b) == 0
        ll.llama_synchronize(context)
        return time.perf_counter() - start

    def run():
        """Seconds, and those of llama_decode alone. The last token drawn needs no decoding."""
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        prompt = rng.integers(100, 40000, size=(batch, n_prompt))
        start = time.perf_counter()
        decoding = decode(prompt.ravel(), list(range(n_prompt)) * batch,
                          [s for s in range(batch) for _ in range(n_prompt)],
                          ([0] * (n_prompt - 1) + [1]) * batch)
        rows = [(s + 1) * n_prompt - 1 for s in range(batch)]
        for step in range(n_new):
            new = []
            for row in rows:
                logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(context, row), (n_vocab,))
                new.append(int(np.argmax(logits)))
            if step < n_new - 1:
                decoding += decode(new, [n_prompt + step] * batch, range(batch), [1] * batch)
            rows = range(batch)
        return time.perf_counter() - start, decoding

    run()
    runs = [run() for _ in range(repeat)]
    report("llama.cpp Q8_0", batch, n_new, min(r[0] for r in runs))
    report("llama.cpp Q8_0: llama_decode alone", batch, n_new, min(r[1] for r in runs))


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
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peers", default="llama.cpp,bfloat16,float32")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        if args.one == "llama.cpp":
            make_q8_0(os.environ["QUIPU_REAL"])
        for batch in map(int, args.batch.split(",")):
            if args.one == "llama.cpp":
                run_llama_cpp(batch, args.prompt, args.new, args.repeat)
            else:
                run_transformers(args.one, batch, args.prompt, args.new, args.repeat)
        return
    for peer in args.peers.split(","):
        command = [sys.executable, __file__, "--one", peer, *sys.argv[1:]]
        if subprocess.run(command, check=False).returncode != 0:
            print(f"not measured: {peer}: it failed", file=sys.stderr)


if __name__ == "__main__":
    main()
