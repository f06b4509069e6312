#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/folders.json: folders of tokenizer files and what transformers makes of them.

    make_tokenizer_folders.py

Needs the package transformers. Each case is a model of tests/golden/tokenizers ("model"; "patch" replaces keys
of its JSON) with further files ("files"); "bos", "eos", "pad", "n_vocab" and "template" are what AutoTokenizer
says, "ids" those of each text with and without special tokens around it. "unicode" has, for each normalisation
form, hashes of the ids of random texts of many scripts, which the test draws with the same generator.
"""
import json
import pathlib
import shutil
import tempfile

import transformers

HERE = pathlib.Path(__file__).resolve().parent / "tokenizers"
OUT = HERE / "folders.json"

TEXTS = ["hello world", " two  spaces ", "", "a<s> b</s>c <unk>", "x<|im_start|>user\ny<|im_end|> \n",
         "[PAD] <extra> <extra>s", "\u2581under \u2581",
         "\u65e5\u672c \u00e9 e\u0301 \ufb01 \u212b \uac01 \u1100\u1161\u11a8",
         "  <mask>  z <sep>", "one <a> two  <b>  three"]


def token(content, special=True, **flags):
    made = {"content": content, "lstrip": False, "normalized": not special, "rstrip": False, "single_word": False,
            "special": special}
    return {**made, **flags}


def cases():
    llama = {"tokenizer_class": "LlamaTokenizer"}
    bos = {**llama, "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"}
    sp = {"model": "spm.model"}
    config, added, special = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
    im = {"<|im_start|>": 1500, "<|im_end|>": 1501, "[PAD]": 1502}
    decoder = {"1500": token("<|im_start|>"), "1501": token("<|im_end|>"), "1502": token("[PAD]")}
    # SentencePiece folders
    yield {**sp, "files": {}}
    yield {**sp, "files": {config: llama}}
    yield {**sp, "files": {config: {**bos, "legacy": True}}}
    yield {**sp, "files": {config: {**bos, "legacy": False, "add_eos_token": True}}}
    yield {**sp, "files": {config: {**bos, "legacy": None, "add_prefix_space": False}}}
    yield {**sp, "files": {config: {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}}}
    yield {**sp, "files": {config: bos, added: im}}
    yield {**sp, "files": {config: {**bos, "added_tokens_decoder": decoder}, added: im}}
    yield {**sp, "files": {config: bos, added: im, special: {"pad_token": "[PAD]", "eos_token": token("<|im_end|>")}}}
    yield {**sp, "files": {config: {**bos, "added_tokens_decoder": decoder, "pad_token": "[PAD]"},
                           special: {"eos_token": "<|im_end|>"}}}
    yield {**sp, "files": {config: {**llama, "pad_token": "[PAD]", "additional_special_tokens": ["<extra>"]}}}
    yield {**sp, "files": {config: {"add_bos_token": True}, added: im}}
    further = [("additional_special_tokens", "additional_special_tokens"), ("extra_special_tokens",) * 2,
               ("extra_special_tokens", "additional_special_tokens")]
    for model, own in [("spm.model", bos), ("smollm.json", {"tokenizer_class": "PreTrainedTokenizerFast"})]:
        for key, beside in further:
            yield {"model": model, "files": {config: own, special: {beside: ["<extra>", "<a>"]}}}
            yield {"model": model, "files": {config: {**own, key: ["<extra>"]}, special: {beside: ["<a>"]}}}
    yield {**sp, "files": {config: bos, "config.json": {"model_type": "mistral"}}}
    # tokenizer.json, which LlamaTokenizer reads in part
    yield {"model": "llama2.json", "files": {config: llama}}
    yield {"model": "llama2.json", "files": {config: {**llama, "legacy": True}}}
    yield {"model": "llama2.json", "files": {config: {"tokenizer_class": "PreTrainedTokenizerFast"}}}
    yield {"model": "llama2.json", "files": {config: llama, "config.json": {"model_type": "mistral"}}}
    yield {"model": "smollm.json", "files": {config: {**llama, "eos_token": "<|im_end|>"}}}
    # classes that rebuild tokenizer.json
    family = {"model_type": "llama"}
    around = {"sep": ["b", 66], "cls": ["a", 65]}
    end = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": None, "unk_token": None}
    for name in ("GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast"):
        for model in ("smollm.json", "gpt2.json"):
            yield {"model": model, "files": {config: {"tokenizer_class": name}, "config.json": family}}
        yield {"model": "smollm.json", "files": {config: {"tokenizer_class": name, "add_prefix_space": True, **end},
                                                 "config.json": family}}
        yield {"model": "smollm.json", "files": {config: {"tokenizer_class": name, **end},
                                                 "config.json": {"model_type": "mistral"}}}
        yield {"model": "gpt2.json", "patch": {"normalizer": {"type": "NFKC"}, "post_processor": {
            "type": "BertProcessing", **around}},
               "files": {config: {"tokenizer_class": name, "eos_token": "b"}, "config.json": family}}
    # what counts where the class stands elsewhere, or nowhere
    for files in ({}, {config: {}}, {config: {"tokenizer_class": None}}):
        for model in ("smollm.json", "llama2.json"):
            yield {"model": model, "files": {**files, "config.json": family}}
        yield {"model": "llama2.json", "files": {**files, "config.json": {**family, "tokenizer_class": "LlamaTokenizer"}}}
        yield {"model": "smollm.json", "files": {**files, "config.json": {**family, "tokenizer_class": "GPT2Tokenizer"}}}
    # BOS and EOS around a text
    for model in ("smollm.json", "llama2.json"):
        for flags in ({"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True},
                      {"add_bos_token": True, "add_eos_token": True}):
            for name in ("PreTrainedTokenizerFast", "LlamaTokenizer") + (("GPT2Tokenizer",) if "smol" in model else ()):
                yield {"model": model, "files": {config: {"tokenizer_class": name, **flags}, "config.json": family}}
    # tokens beside tokenizer.json
    size = 1502
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    yield {"model": "smollm.json", "files": {config: {**fast, "eos_token": "<|im_end|>"},
                                             special: {"eos_token": "<|endoftext|>", "bos_token": "<|im_start|>"}}}
    yield {"model": "smollm.json", "files": {config: {**fast, "eos_token": None, "pad_token": "[PAD]"}}}
    yield {"model": "smollm.json", "files": {config: {
        **fast, "extra_special_tokens": ["<extra>", "<a>"], "mask_token": {"__type": "AddedToken", **token(
            "<mask>", lstrip=True)}, "image_token": "<b>", "sep_token": "<sep>"}}}
    yield {"model": "smollm.json", "files": {config: {**fast, "added_tokens_decoder": {
        str(size): token("<a>", rstrip=True), str(size + 1): token("<b>", special=False, lstrip=True)}}}}
    yield {"model": "smollm.json", "files": {config: {**fast, "added_tokens_decoder": {
        "1": token("<|im_start|>", rstrip=True), "2": token("<|im_end|>", special=False)}}}}
    yield {"model": "smollm.json", "files": {config: fast, added: {"<a>": size, "<|im_end|>": 2}}}
    yield {"model": "smollm.json", "files": {config: json.dumps({
        **fast, "model_max_length": int(1e30), "unread": float("nan"), "chat_template": "A"})}}
    # chat templates
    yield {"model": "smollm.json", "files": {config: {**fast, "chat_template": "A"}, "chat_template.jinja": "B"}}
    yield {"model": "smollm.json", "files": {config: {**fast, "chat_template": [
        {"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}}}
    yield {"model": "smollm.json", "files": {config: {**fast, "chat_template": "A"}, "chat_template.jinja": "B",
                                             "additional_chat_templates/tool_use.jinja": "U"}}
    # normalizers and post-processors
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield {"model": "gpt2.json", "patch": {"normalizer": {"type": form}}, "files": {config: fast}}
    yield {"model": "gpt2.json", "files": {config: fast}, "patch": {"normalizer": {
        "type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"String": "fi"},
                                                              "content": "f"}]}}}
    yield {"model": "gpt2.json", "files": {config: fast}, "patch": {"normalizer": {"type": "NFC"}, "added_tokens": [
        {"id": 0, **token("<|endoftext|>")}, {"id": 1500, **token("\u212b", special=False)}]}}
    yield {"model": "gpt2.json", "files": {config: fast}, "patch": {"post_processor": {
        "type": "RobertaProcessing", **around, "trim_offsets": True, "add_prefix_space": False}}}
    yield {"model": "gpt2.json", "files": {config: fast}, "patch": {"post_processor": {
        "type": "BertProcessing", **around}}}


def write_folder(case, folder):
    model = HERE / case["model"]
    if model.suffix == ".json":
        (folder / "tokenizer.json").write_text(json.dumps({**json.loads(model.read_text()), **case.get("patch", {})}))
    else:
        shutil.copy(model, folder / "tokenizer.model")
    for name, content in case["files"].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def load(case):
    with tempfile.TemporaryDirectory() as folder:
        write_folder(case, pathlib.Path(folder))
        return transformers.AutoTokenizer.from_pretrained(folder)


def template_of(tokenizer):
    if tokenizer.chat_template is None:
        return {}
    tools = tokenizer.get_chat_template(tools=[{}])
    return {"template": tokenizer.get_chat_template(), "tool_template": tools}


def judged(case):
    tokenizer = load(case)
    ids = [[tokenizer(text).input_ids, tokenizer(text, add_special_tokens=False).input_ids] for text in TEXTS]
    named = {name: getattr(tokenizer, name + "_token_id") for name in ("bos", "eos", "pad")}
    return {**case, **named, "n_vocab": max(tokenizer.get_vocab().values()) + 1, **template_of(tokenizer), "ids": ids}


# --- random texts ----------------------------------------------------------------------------------------

RANGES = [(0x20, 0x7e), (0xa0, 0x17f), (0x1e00, 0x1eff), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x4ff),
          (0x5b0, 0x5ea), (0x620, 0x65f), (0x900, 0x97f), (0x980, 0x9ff), (0xb80, 0xbff), (0xe00, 0xe4f),
          (0xf40, 0xfbc), (0x1000, 0x104f), (0x1100, 0x11ff), (0x1f00, 0x1fff), (0x2000, 0x206f), (0x2070, 0x218f),
          (0x2460, 0x24ff), (0x3040, 0x30ff), (0x3130, 0x318f), (0x3200, 0x33ff), (0x4e00, 0x4fff), (0xac00, 0xad00),
          (0xf900, 0xfaff), (0xfb00, 0xfb4f), (0xfe30, 0xfe6f), (0xff00, 0xffee), (0x1d400, 0x1d4ff),
          (0x1f100, 0x1f1ff), (0x2f800, 0x2fa1d), (0x11080, 0x110bf)]
N_TEXT, N_GROUP = 4000, 40


class Draw:
    """xorshift32, as in the test."""

    def __init__(self):
        self.state = 2463534242

    def __call__(self, n):
        x = self.state
        x ^= x << 13 & 0xffffffff
        x ^= x >> 17
        x ^= x << 5 & 0xffffffff
        self.state = x
        return x % n


def random_texts():
    draw = Draw()
    for _ in range(N_TEXT):
        ranges = [RANGES[draw(len(RANGES))] for _ in range(3)]
        text = ""
        for _ in range(1 + draw(24)):
            low, high = ranges[draw(3)]
            text += chr(low + draw(high - low + 1))
        yield text


def hashes(form):
    tokenizer = load({"model": "gpt2.json", "patch": {"normalizer": {"type": form}}, "files": {}})
    groups, value = [], 0xcbf29ce484222325
    for i, text in enumerate(random_texts()):
        for id_ in tokenizer(text, add_special_tokens=False).input_ids + [-1]:
            value = ((value ^ (id_ & 0xffffffff)) * 0x100000001b3) & 0xffffffffffffffff
        if (i + 1) % (N_TEXT // N_GROUP) == 0:
            groups.append(f"{value:016x}")
    return groups


def main():
    golden = {"texts": TEXTS, "cases": [judged(case) for case in cases()],
              "ranges": RANGES, "unicode": {form: hashes(form) for form in ("NFC", "NFD", "NFKC", "NFKD")}}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in golden.pop("cases"))
    OUT.write_text(json.dumps(golden, separators=(",", ":"))[:-1] + ',\n"cases":[\n' + lines + "]}\n")


if __name__ == "__main__":
    main()
