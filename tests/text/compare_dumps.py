#!/usr/bin/env python3
"""Ids and single-thread speed of the tokenizers beside HF tokenizers and SentencePiece, on every title
and body of both dumps.

    compare_dumps.py BUILD [--dumps FOLDER] [--real FOLDER] [--repeat N]

BUILD holds tests/test_text_dumps. Needs the packages tokenizers and sentencepiece (and gguf, for
--real). Prints one line per dump and model: differing texts, MB/s here, MB/s of the peer one text at a
time and in one batch call. The runs alternate and the best of N counts. Exit code 1 on a difference.
"""
import argparse
import array
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))

import sentencepiece  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
import make_tokenizers as maker  # noqa: E402


def hf_peer(tokenizer):
    tokenizer.encode_special_tokens = True
    return {"one": lambda texts: [tokenizer.encode(t, add_special_tokens=False).ids for t in texts],
            "batch": lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]}


def sp_peer(processor):
    return {"one": lambda texts: [processor.encode(t) for t in texts],
            "batch": lambda texts: processor.encode(texts, num_threads=1)}


def models(real):
    golden = maker.OUT
    for name in ("gpt2", "llama3", "smollm", "llama2", "metaspace"):
        yield golden / f"{name}.json", hf_peer(Tokenizer.from_file(str(golden / f"{name}.json")))
    yield golden / "spm.model", sp_peer(sentencepiece.SentencePieceProcessor(str(golden / "spm.model")))
    if real:
        path = real / "SmolLM2-135M-Instruct.Q4_1.gguf"
        yield path, hf_peer(maker.tokenizer_of_gguf(maker.gguf_metadata(path)))
        path = real / "tokenizer.model.v1"
        yield path, sp_peer(sentencepiece.SentencePieceProcessor(str(path)))


def run_ours(program, model, dump):
    """Ids of every text, and the seconds it took."""
    with tempfile.NamedTemporaryFile() as out:
        line = subprocess.run([program, model, dump, out.name], check=True, capture_output=True,
                              text=True).stdout
        ids = array.array("i", pathlib.Path(out.name).read_bytes())
    texts, row = [], []
    for i in ids:
        if i >= 0:
            row.append(i)
        else:
            texts.append(row)
            row = []
    return texts, float(line.split()[0])


def run_peer(encode, texts):
    start = time.perf_counter()
    ids = encode(texts)
    return ids, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--dumps", type=pathlib.Path, default=HERE.parents[2] / "shared/data/stackexchange")
    parser.add_argument("--real", type=pathlib.Path)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    program, failed = arguments.build / "tests/test_text_dumps", False
    print(f"{'dump':28}{'model':34}{'texts':>6}{'differ':>8}{'here':>8}{'one':>8}{'batch':>8}  MB/s")
    for dump in maker.DUMPS:
        texts = list(maker.read_dump(arguments.dumps / dump))
        mb = sum(len(t.encode()) for t in texts) / 1e6
        for model, peer in models(arguments.real):
            best = {"here": 1e30, "one": 1e30, "batch": 1e30}
            for _ in range(arguments.repeat):
                ours, seconds = run_ours(program, model, arguments.dumps / dump)
                best["here"] = min(best["here"], seconds)
                for name, encode in peer.items():
                    theirs, seconds = run_peer(encode, texts)
                    best[name] = min(best[name], seconds)
            differ = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))
            failed = failed or differ > 0
            speeds = "".join(f"{mb / best[name]:8.2f}" for name in ("here", "one", "batch"))
            print(f"{dump:28}{model.name:34}{len(texts):6}{differ:8}{speeds}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
