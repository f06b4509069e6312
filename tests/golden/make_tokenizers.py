#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/: small tokenizers and the ids HF tokenizers and SentencePiece give.

    make_tokenizers.py [--dumps FOLDER] [--real FOLDER]

Needs the packages tokenizers and sentencepiece (and gguf for --real). The vocabularies are trained on
the dump beer.Posts.xml.gz (CC BY-SA). What it writes:

    gpt2.json, llama3.json, smollm.json   byte-level BPE with the three split patterns
    llama2.json                           BPE with byte fallback as converted from SentencePiece
    odd.json, unfused.json                small and unusual BPE; ids of the nasty texts only
    spm.model                             SentencePiece BPE with byte fallback
    spm.gguf.json, smollm.gguf.json       the same models as the metadata of a GGUF
    texts.json                            texts: of the dumps and nasty ones
    splits.json                           pre-tokenizers and the pieces they cut texts into
    NAME.ids.json                         ids and decoded text of each text; ids that ADD_SPECIAL prefixes
    dumps.txt                             per dump and model: texts, ids, hash of all ids
"""
import argparse
import base64
import gzip
import io
import json
import pathlib
import random
import xml.etree.ElementTree

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "tokenizers"
DUMPS = ["beer.Posts.xml.gz", "matheducators.Posts.xml.gz"]
N_VOCAB = 1500

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


UNMERGED = ["exchanged", "tapster"]


def read_dump(path):
    """Titles and bodies in the order of the file."""
    with gzip.open(path) as file:
        for _, row in xml.etree.ElementTree.iterparse(file):
            for name in ("Title", "Body"):
                if name in row.attrib:
                    yield row.attrib[name]
            row.clear()


# --- tokenizers ------------------------------------------------------------------------------------------

def byte_level(pre_tokenizer, specials, **options):
    """An untrained byte-level BPE."""
    made = Tokenizer(models.BPE(**options))
    made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(specials)
    return made


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def smollm_pre_tokenizer():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False)])


def train(tokenizer, texts, specials, alphabet):
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=N_VOCAB, special_tokens=specials, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def train_all(texts):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made = {}

    special = ["<|endoftext|>"]
    made["gpt2"] = train(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), special),
                         texts, special, alphabet)

    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
               "<|eot_id|>"]
    llama3 = train(byte_level(split_then_bytes(LLAMA3), special, ignore_merges=True),
                   texts, special, alphabet)
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", llama3.token_to_id("<|begin_of_text|>"))])
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    # As the real one: tokens that no merge makes, found because merges are ignored for whole words.
    data = json.loads(llama3.to_str())
    for word in UNMERGED:
        data["model"]["vocab"]["\u0120" + word] = len(data["model"]["vocab"])
    made["llama3"] = Tokenizer.from_str(json.dumps(data))

    # As the real one: an alphabet without some bytes, so that unknown bytes are dropped.
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made["smollm"] = train(byte_level(smollm_pre_tokenizer(), special), texts, special, [])
    made["smollm"].add_tokens([AddedToken("<think>", normalized=False, lstrip=True, rstrip=True),
                               AddedToken("<em>", normalized=True)])
    return made


def odd_one(fuse_unk):
    """Small and unusual: no byte fallback, a token that goes across a space, overlapping added tokens."""
    pairs = [("t", "h"), ("th", "e"), ("e", "\u2581"), ("the", "\u2581"), ("\u2581", "a"), ("e", "r")]
    tokens = ["<unk>", "\u2581", *"abcdefghijklmnoprstuvwy.,<>/", *("".join(pair) for pair in pairs)]
    made = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, pairs, unk_token="<unk>",
                                fuse_unk=fuse_unk))
    made.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="always", split=False)
    made.decoder = decoders.Metaspace("\u2581", prepend_scheme="always")
    made.add_tokens(["<a", "<ab>", "b>c"])
    made.add_special_tokens([AddedToken("<sp>", lstrip=True), AddedToken("</s>", rstrip=True)])
    made.add_tokens([AddedToken("p>x", normalized=False)])
    return made


def train_sentencepiece(texts):
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n")), model_writer=stream,
        model_type="bpe", vocab_size=N_VOCAB, byte_fallback=True, character_coverage=0.995,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, minloglevel=2)
    return stream.getvalue()


def spm_proto(model):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto


def llama2_from(model):
    """The way transformers turns LLaMA's tokenizer.model into tokenizer.json (legacy form)."""
    proto = spm_proto(model)
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    merges = []
    for piece in proto.pieces:
        if piece.type == 1:
            pairs = [(piece.piece[:i], piece.piece[i:]) for i in range(1, len(piece.piece))]
            pairs = [pair for pair in pairs if pair[0] in vocab and pair[1] in vocab]
            pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
            merges += [(pair, piece.score) for pair in pairs]
    merges = [pair for pair, _ in sorted(merges, key=lambda item: item[1], reverse=True)]
    made = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                            normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                      decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return made


def metaspace_from(model):
    """The newer form: Metaspace with the prefix on the first part only, merges as in llama2_from."""
    made = llama2_from(model)
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first", split=False)
    return made


def gguf_of_spm(model):
    proto = spm_proto(model)
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": [piece.piece for piece in proto.pieces],
            "tokenizer.ggml.scores": [piece.score for piece in proto.pieces],
            "tokenizer.ggml.token_type": [piece.type for piece in proto.pieces],
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": False}


def gguf_of_json(tokenizer, pre):
    data = json.loads(tokenizer.to_str())
    tokens = sorted(data["model"]["vocab"].items(), key=lambda item: item[1])
    special = {item["id"]: 3 if item["special"] else 4 for item in data["added_tokens"]}
    merges = [" ".join(pair) for pair in data["model"]["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": [text for text, _ in tokens],
            "tokenizer.ggml.token_type": [special.get(i, 1) for _, i in tokens],
            "tokenizer.ggml.merges": merges, "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_bos_token": False}


def tokenizer_of_gguf(metadata):
    """SmolLM2's tokenizer.json from the metadata of its GGUF."""
    tokens = metadata["tokenizer.ggml.tokens"]
    made = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)},
                                [tuple(line.split(" ")) for line in metadata["tokenizer.ggml.merges"]]))
    made.pre_tokenizer = smollm_pre_tokenizer()
    made.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    made.add_special_tokens([AddedToken(text, normalized=False)
                             for text, kind in zip(tokens, types) if kind == 3])
    return made


def gguf_metadata(path):
    import gguf
    fields = gguf.GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if name.startswith("tokenizer.")}


# --- pre-tokenizers --------------------------------------------------------------------------------------

def split_cases():
    """Steps that the models above do not use, and classes that differ between regex engines."""
    split, sequence = pre_tokenizers.Split, pre_tokenizers.Sequence
    text = "a\u180eb c\u2003d\u0085e  f_1\u00bd\u2167\u24b6\u0301-g\n\nx\u200by \u0664\u00b2 z"
    steps = [split(Regex(r"\s+"), "isolated"), split(Regex(r"[^\s]+"), "isolated"),
             split(Regex(r"\S+"), "removed"), split(Regex(r"\w+"), "removed", invert=True),
             split(Regex(r"[\w-]+"), "isolated"), split(Regex(r"\W"), "isolated"),
             split(Regex(r"\d+"), "removed"), split(Regex(r"x*"), "isolated"), split(Regex(r"^.|.$"), "removed"),
             split(" ", "removed"), split("  ", "isolated"), pre_tokenizers.WhitespaceSplit(),
             pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Digits(individual_digits=True),
             sequence([pre_tokenizers.WhitespaceSplit(), split("-", "isolated"), pre_tokenizers.Digits()])]
    for scheme in ("never", "first", "always"):
        for cut in (False, True):
            steps.append(pre_tokenizers.Metaspace("\u2581", prepend_scheme=scheme, split=cut))
            steps.append(sequence([split("-", "isolated"), steps[-1]]))
    return [{"pre_tokenizer": json.loads(step.__getstate__()), "text": sample,
             "pieces": [piece for piece, _ in step.pre_tokenize_str(sample)]}
            for step in steps for sample in (text, " a  b", "\u2581a \u2581")]


# --- texts and ids ---------------------------------------------------------------------------------------

def nasty_texts():
    emoji = "\U0001f469\u200d\U0001f680\U0001f1e9\U0001f1ea\u2764\ufe0f"
    return [
        "", " ", "  ", "\n", "\r\n\r\n", "\t \t\n  x", "a", "\u00e9", "e\u0301\u0301", emoji,
        "beer " + emoji * 3 + "foam", "\u65e5\u672c\u8a9e\u306e\u30d3\u30fc\u30eb 500ml\u3002",
        "\u0627\u0644\u0628\u064a\u0631\u0629 \u0661\u0662\u0663", "\u0939\u093f\u0928\u094d\u0926\u0940",
        "12345 1 22 333 4444 \u00bd \u2163 \u0e51\u0e52", "it's I'LL we'Ve they'D 'tis \u017f'\u017f",
        "\x00\x01\x02\x7f\x80\x85\x9f", "a\u00a0b\u2003c\u3000d\u180ee\u200bf\u2028g\ufeffh",
        "   leading", "trailing   ", "a  b   c    d", "\n\n\n  \n x \n", "x" * 300, " " * 300,
        "ab" * 200, "\u65e5" * 100, "=" * 120 + "\n" + "-" * 77, "a1b2c3_d4-e5", "\\frac{a}{b} $x^2$",
        "<p>One &amp; two<br/></p>", "<|endoftext|>", "a<|im_start|>user\nhi<|im_end|>\n<|im_end|",
        "<|begin_of_text|><|start_header_id|>x<|end_header_id|>\n\n<|eot_id|>", "<s>a</s> b <unk>",
        "x  <think>  y <think>z", "an <em>old</em> ale", "\u2581under\u2581 \u2581bar", "<0x41><0x0A>",
        "the tapster exchanged tapsters",
        "<a <ab> <ab>c <ab", "a  <sp> b<sp>x </s>  c", "the there theatre 123 zzz qq 4", "\u00e9\u00e9e\u00e9", "\u0120\u010a\u00ad", "\U0010ffff\U000e0001\ue000", "A\u030a\u00c5\u212b \ufb01 \uff21",
        "https://beer.example.org/?q=1&r=%20#top", "\t\tint main(void)\n\t{\n\t\treturn 0;\n\t}\n",
    ]


# Bytes that are no UTF-8; HF gets them as Python's errors="replace" reads them.
INVALID = [b"\xff", b"a\xc3", b"\xe2\x82 x", b"\xf0\x9f\x98", b"\xc0\xaf\xed\xa0\x80z", b"\xf8\x88\x80\x80",
           b"ok \x80\x81 \xe2\x28\xa1 \xf4\x90\x80\x80 end"]


def golden_texts(dumps):
    """Base64 of the bytes of each text: nasty ones, then short ones of the dumps."""
    texts = [text.encode() for text in nasty_texts()] + INVALID
    draw = random.Random(7)
    for dump in dumps:
        texts += [text.encode() for text in draw.sample([t for t in dump if len(t) < 250], 40)]
    return texts


def row_of(bytes_, parsed, literal, decoded, skipped):
    """What is as one would expect is left out: literal = parsed, decoded = bytes, skipped = decoded."""
    row = {"parsed": parsed}
    if literal != parsed:
        row["literal"] = literal
    if decoded.encode() != bytes_:
        row["decoded"] = decoded
    if skipped != decoded:
        row["skipped"] = skipped
    return row


def hf_ids(tokenizer, texts):
    rows = []
    prefix = tokenizer.encode("").ids
    for bytes_ in texts:
        text = bytes_.decode(errors="replace")
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text).ids == prefix + parsed
        tokenizer.encode_special_tokens = True
        literal = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        rows.append(row_of(bytes_, parsed, literal, tokenizer.decode(parsed, skip_special_tokens=False),
                           tokenizer.decode(parsed)))
    return {"prefix": prefix, "rows": rows}


def sp_ids(processor, texts):
    """SentencePiece finds no control tokens in a text, so only texts without them have \"parsed\"."""
    rows = []
    for bytes_ in texts:
        ids, text = processor.encode(bytes_), bytes_.decode(errors="replace")
        row = row_of(bytes_, ids, ids, processor.decode(ids), processor.decode(ids))
        if any(control in text for control in ("<s>", "</s>")):
            row["literal"] = row.pop("parsed")
        rows.append(row)
    return {"prefix": [1], "rows": rows}


def fnv(ids, value):
    for i in ids:
        value = ((value ^ (i & 0xffffffff)) * 0x100000001b3) & 0xffffffffffffffff
    return value


def hash_ids(encode, dump):
    """FNV-1a of all ids as 32-bit words, -1 after each text."""
    value, n = 0xcbf29ce484222325, 0
    for text in dump:
        ids = encode(text)
        value = fnv([-1], fnv(ids, value))
        n += len(ids)
    return n, value


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (OUT / name).write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dumps", type=pathlib.Path, default=HERE.parents[2] / "shared/data/stackexchange")
    parser.add_argument("--real", type=pathlib.Path)
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    dumps = [list(read_dump(arguments.dumps / name)) for name in DUMPS]
    texts = golden_texts(dumps)
    write("texts.json", [base64.b64encode(text).decode() for text in texts])

    write("splits.json", split_cases())
    hf = train_all(dumps[0])
    spm = train_sentencepiece(dumps[0])
    (OUT / "spm.model").write_bytes(spm)
    hf["llama2"] = llama2_from(spm)
    hf["metaspace"] = metaspace_from(spm)
    hf["odd"], hf["unfused"] = odd_one(True), odd_one(False)
    for name, tokenizer in hf.items():
        data = json.loads(tokenizer.to_str())
        if name == "gpt2":  # the older way to write merges
            data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
        write(f"{name}.json", data)
        few = len(nasty_texts()) + len(INVALID)
        write(f"{name}.ids.json", hf_ids(tokenizer, texts[:few] if name in ("odd", "unfused") else texts))
    write("smollm.gguf.json", gguf_of_json(hf["smollm"], "smollm"))
    write("spm.gguf.json", gguf_of_spm(spm))
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm)
    write("spm.ids.json", sp_ids(processor, texts))

    encoders = {f"golden/tokenizers/{name}.json": lambda text, t=t: t.encode(text, add_special_tokens=False).ids
                for name, t in hf.items()}
    for tokenizer in hf.values():
        tokenizer.encode_special_tokens = True
    encoders["golden/tokenizers/spm.model"] = processor.encode
    if arguments.real:
        metadata = gguf_metadata(arguments.real / "SmolLM2-135M-Instruct.Q4_1.gguf")
        smollm2 = tokenizer_of_gguf(metadata)
        smollm2.encode_special_tokens = True
        encoders["real/SmolLM2-135M-Instruct.Q4_1.gguf"] = (
            lambda text: smollm2.encode(text, add_special_tokens=False).ids)
        real = sentencepiece.SentencePieceProcessor(str(arguments.real / "tokenizer.model.v1"))
        encoders["real/tokenizer.model.v1"] = real.encode
    with open(OUT / "dumps.txt", "w", encoding="utf-8") as file:
        file.write("# dump model texts ids fnv1a\n")
        for name, dump in zip(DUMPS, dumps):
            for model, encode in encoders.items():
                n, value = hash_ids(encode, dump)
                file.write(f"{name} {model} {len(dump)} {n} {value:016x}\n")


if __name__ == "__main__":
    main()
