#!/usr/bin/env python3
"""Makes tests/golden/chat.json: conversations as transformers' apply_chat_template renders and tokenises them.

    make_chat.py SHARED

Needs the package transformers; SHARED is the data folder beside the checkout. Every template of tests/golden/chat
and of SHARED/data/chat-templates meets every conversation, with tokenizers of tests/golden/tokenizers in turn. A
case has the ids and which of them the assistant writes: return_assistant_tokens_mask where the template has
generation blocks; elsewhere the definition of src/text/chat.h, from apply_chat_template of each beginning of the
conversation ("mask" is null where one of these is refused or is not how the whole begins). "refused": transformers
raises an error. Ids of SHARED's templates are kept as hashes.
"""
import itertools
import json
import pathlib
import re
import sys

import transformers

import make_tokenizer_folders as folders

HERE = pathlib.Path(__file__).resolve().parent
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end|>",
           "<end_of_turn>", "<start_of_turn>", "<|end_of_turn|>", "<|end_of_text|>", "<|start_of_role|>",
           "<|end_of_role|>", "<|User|>", "<|Assistant|>"]

TOKENIZERS = {
    "bytes": {"model": "smollm.json", "files": {"tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "extra_special_tokens": SPECIAL}}},
    "trimmed": {"model": "gpt2.json", "patch": {
        "normalizer": {"type": "NFC"},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
        "files": {"tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
            "extra_special_tokens": SPECIAL}}},
    "llama": {"model": "spm.model", "files": {"tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "pad_token": "<unk>",
        "additional_special_tokens": SPECIAL}}},
    "metaspace": {"model": "metaspace.json", "files": {"tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "extra_special_tokens": ["<|im_end|>"]}}},
}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


TOOL = {"type": "function", "function": {"name": "add", "description": "Adds <numbers> & more.", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a"]}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2.5}}}
USER, ANSWER = say("user", " What is an ale?\n"), say("assistant", "A beer.\n")

CONVERSATIONS = [
    {"messages": [USER, ANSWER]},
    {"messages": [say("system", " Be brief. "), USER, ANSWER, say("user", "Warm?"),
                  say("assistant", "Yes, \u00fcber e\u0301.")]},
    {"messages": [say("user", "hi"), say("assistant", "<think>\nhm\n</think>\n\nho"), say("user", "hu"),
                  say("assistant", "<think>\nhm, hm\n</think>\n\nha")]},
    {"messages": [say("user", "hi"), say("assistant", "ho", reasoning="because"), say("user", "hu"),
                  say("assistant", "ha", reasoning_content="as \u65e5\u672c", name=None)]},
    {"messages": [say("system", "Use tools."), say("user", "1 + 2.5?"), say("assistant", None, tool_calls=[CALL]),
                  say("tool", "3.5"), say("assistant", "It is 3.5.")], "tools": [TOOL]},
    {"messages": [say("user", [{"type": "text", "text": "see "}, {"type": "text", "text": "this"}]),
                  say("assistant", [{"type": "text", "text": "I see"}])]},
    {"messages": [say("assistant", "I begin."), say("user", "ok"), say("assistant", "Good.")]},
    {"messages": [say("user", "hi"), say("assistant", "  spaces  "), say("user", "x"),
                  say("assistant", "\n\nlines\n\n")]},
    {"messages": [say("user", "again"), say("assistant", "again"), say("user", "again"), say("assistant", "again")]},
    {"messages": [say("user", "eos </s> <|im_end|> inside"), say("assistant", "a <|im_end|> b")]},
    {"messages": [say("user", "hi"), say("assistant", "")]},
    {"messages": [say("user", "hi"), say("assistant", "ho"), say("user", "next")], "generation": True},
    {"messages": [say("user", "hi"), say("assistant", "ho"), say("user", "next")],
     "variables": {"enable_thinking": False, "custom": "x"}, "generation": True},
    {"messages": [say(("user", "assistant")[i % 2], f"turn {i} {'word ' * (i % 5)}") for i in range(14)]},
    {"messages": [say("user", "two"), say("user", "in a row"), say("assistant", "one"), say("assistant", "two")]},
]


# --- what transformers says ------------------------------------------------------------------------------

class Judge:
    def __init__(self, tokenizer, template, conversation):
        self.tokenizer, self.template, self.conversation = tokenizer, template, conversation
        self.messages = conversation["messages"]

    def apply(self, n=None, generation=False, **options):
        return self.tokenizer.apply_chat_template(
            self.messages[:n], chat_template=self.template, tools=self.conversation.get("tools"),
            add_generation_prompt=generation, **self.conversation.get("variables", {}), **options)

    def text(self, n, generation):
        return self.apply(n, generation, tokenize=False)

    def end_of_answer(self, i, text, begin):
        """With the last special token behind the content, else with the last character that is no white space."""
        content = self.messages[i].get("content")
        content = content.rstrip() if isinstance(content, str) else ""
        found = text.rfind(content, begin) if content else -1
        behind = found + len(content) if found >= 0 else len(text)
        specials = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        marks = list(re.finditer("|".join(re.escape(token) for token in specials), text[behind:]))
        return behind + marks[-1].end() if marks else len(text.rstrip())

    def spans(self, whole):
        """The answers by definition; None where it does not apply."""
        spans = []
        for i, message in enumerate(self.messages):
            if message["role"] != "assistant":
                continue
            try:
                before, after = self.text(i, True) if i else "", self.text(i + 1, False)
            except Exception:
                return None
            if i == 0:
                return None
            begin = next((k for k, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after)))
            end = self.end_of_answer(i, after, begin)
            if not whole.startswith(after[:end]):
                return None
            spans.append((begin, end))
        return spans

    def judged(self):
        generation = self.conversation.get("generation", False)
        try:
            marked = re.search(r"\{%-?\s*generation\s*-?%\}", self.template) is not None
            out = self.apply(None, generation, return_assistant_tokens_mask=marked, return_dict=True)
        except Exception:
            return {"refused": True}
        whole = self.text(None, generation)
        if marked:
            return {"ids": out["input_ids"], "mask": "".join(map(str, out["assistant_masks"]))}
        spans = self.spans(whole)
        if spans is None:
            return {"ids": out["input_ids"], "mask": None}
        offsets = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        mask = "".join(str(int(any(begin < end_ and end > begin_ for begin_, end_ in spans))) for begin, end in offsets)
        return {"ids": out["input_ids"], "mask": mask}


def hash_of(ids):
    value = 0xcbf29ce484222325
    for id_ in ids:
        value = ((value ^ id_) * 0x100000001b3) & 0xffffffffffffffff
    return f"{value:016x}"


def shared_cases(shared):
    """The rows of SHARED/cases/chat-templates with the folders beside them."""
    for folder in sorted(path for path in (shared / "cases/chat-templates").iterdir() if path.is_dir()):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for line in (folder.parent / "c12.jsonl").read_text().splitlines():
            messages = json.loads(line)["messages"]
            judged = Judge(tokenizer, tokenizer.chat_template, {"messages": messages}).judged()
            yield {"folder": "cases/chat-templates/" + folder.name, "messages": messages, **judged}


def main():
    shared = pathlib.Path(sys.argv[1])
    own = {path.stem: path.read_text() for path in sorted((HERE / "chat").glob("*.jinja"))}
    others = {path.stem: path.read_text() for path in sorted((shared / "data/chat-templates").glob("*.jinja"))}
    tokenizers = {name: folders.load(spec) for name, spec in TOKENIZERS.items()}
    turn = itertools.cycle(tokenizers)
    cases = []
    for name, template in {**own, **{"shared/" + key: text for key, text in others.items()}}.items():
        for k, conversation in enumerate(CONVERSATIONS):
            tokenizer = next(turn)
            case = {"template": name, "tokenizer": tokenizer, "conversation": k,
                    **Judge(tokenizers[tokenizer], template, conversation).judged()}
            if not case.get("refused"):
                ids = case.pop("ids")
                case.update({"n": len(ids), "hash": hash_of(ids)} if name.startswith("shared/") else {"ids": ids})
            cases.append(case)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    head = json.dumps({"tokenizers": TOKENIZERS, "conversations": CONVERSATIONS,
                       "folders": list(shared_cases(shared))}, separators=(",", ":"))
    (HERE / "chat.json").write_text(head[:-1] + ',\n"cases":[\n' + lines + "]}\n")
    refused = sum(case.get("refused", False) for case in cases)
    unknown = sum(not case.get("refused") and case["mask"] is None for case in cases)
    print(f"{len(own)} + {len(others)} templates, {len(cases)} cases, {refused} refused, {unknown} without a mask")


if __name__ == "__main__":
    main()
