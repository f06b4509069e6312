"""What the benchmarks read, made of the real model's vocabulary or of the FAQ's text.

    material.py prompts GGUF N LENGTH     N different prompts, each word of which is one token
    material.py letters N LENGTH          N different prompts for a tokenizer of bytes
    material.py texts FOLDER MEGABYTES    documents as JSON lines, of sentences of the HTML pages there
    material.py parameters < INSPECTED    parameters of a base, from what quipu-inspect says of it
"""

import json
import pathlib
import random
import re
import sys


def prompts(path, n, length):
    """Words of the vocabulary: strings of a GGUF file stand behind their length in eight bytes."""
    with open(path, "rb") as file:
        head = file.read(8 << 20)
    words = sorted({word for size, word in re.findall(rb"(?s)(.)\0{7}\xc4\xa0([a-z]{4,12})", head)
                    if size[0] == 2 + len(word)})
    draw = random.Random(0)
    for _ in range(n):
        text = "".join(" " + draw.choice(words).decode() for _ in range(length))
        print(json.dumps({"prompt": text}))


def letters(n, length):
    draw = random.Random(0)
    for _ in range(n):
        print(json.dumps({"prompt": "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=length))}))


def texts(folder, megabytes):
    pages = (path.read_text(errors="replace") for path in sorted(pathlib.Path(folder).glob("*.en.html")))
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", " ".join(pages)))
    sentences = re.findall(r"[A-Z][^.?!]{20,400}[.?!]", plain)
    draw, left = random.Random(0), megabytes * 1e6
    while left > 0:
        line = json.dumps({"text": " ".join(draw.choices(sentences, k=draw.randint(5, 40)))})
        left -= len(line) + 1
        print(line)


def parameters(text):
    c = json.loads(text[text.index("{"):text.rindex("}") + 1])
    d, d_kv = c["hidden_size"], c["num_key_value_heads"] * c["head_dim"]
    d_q = c["num_attention_heads"] * c["head_dim"]
    layer = 2 * d * d_q + 2 * d * d_kv + 3 * d * c["intermediate_size"] + 2 * d
    n_table = 1 if c["tie_word_embeddings"] else 2
    print(c["num_hidden_layers"] * layer + n_table * c["vocab_size"] * d + d)


what, *arguments = sys.argv[1:]
if what == "prompts":
    prompts(arguments[0], int(arguments[1]), int(arguments[2]))
elif what == "letters":
    letters(int(arguments[0]), int(arguments[1]))
elif what == "texts":
    texts(arguments[0], float(arguments[1]))
elif what == "parameters":
    parameters(sys.stdin.read())
