#!/usr/bin/env python3
"""Makes tests/golden/jinja.json: what Jinja2, with the environment of transformers, writes for templates.

    make_jinja.py [--shared FOLDER] [--driver PROGRAM]

FOLDER (../shared/data/chat-templates beside the checkout) holds templates of others, of which only
hashes of what they write are kept; without it the hashes are kept from the last run. PROGRAM
(build/release/bin/jinja_driver) chooses the random cases of fuzz_jinja.py that both can write;
without it those of the last run are rendered again. Needs transformers and jinja2.
"""
import argparse
import json
import pathlib

import fuzz_jinja
import jinja_reference
from jinja_templates import TEMPLATES

OUT = pathlib.Path(__file__).resolve().parent / "jinja.json"
SEED, N_FUZZ = 20000, 320

SYSTEM = {"role": "system", "content": " Be brief. /no_think\n"}
USER = {"role": "user", "content": " What is an \u00e4le?\n"}
ANSWER = {"role": "assistant", "content": "<think>\nbeer?\n</think>\n\nA beer \U0001f37a.\n"}
SECOND = {"role": "user", "content": "Warm?\r\n\r\n<b>&</b>"}
PLAIN = {"role": "assistant", "content": "Yes, \u00fcber."}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {"name": "brew", "arguments": {"kind": "\u00e4le", "litres": 1.5, "cold": False, "with": [1, None]}}}]}
CALLS = {"role": "assistant", "content": "Both.", "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {"name": "brew", "arguments": {"kind": "ale"}}},
    {"id": "123456789", "type": "function", "function": {"name": "pour", "arguments": "{\"n\": 2}"}}]}
RESULT = {"role": "tool", "content": "{\"ok\": true}"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "here"}]}
TOOLS = [
    {"type": "function", "function": {"name": "brew", "description": "Brews beer.\nSlowly", "parameters": {"type": "object", "properties": {
        "kind": {"type": "string", "description": "Kind of beer", "enum": ["ale", "stout"]}, "litres": {"type": ["number", "null"], "description": "How much.", "default": 1, "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words"}}, "required": ["kind"]}}},
    {"type": "function", "function": {"name": "pour", "description": "Pours", "parameters": {"type": "object", "properties": {
        "n": {"type": "integer", "description": "Glasses"}, "where": {"type": "object", "additionalProperties": {"type": "boolean"}, "description": "Table"}}}, "return": {"type": "boolean"}}}]
DOCUMENTS = [{"title": "Ales", "text": "Ales are warm."}, {"title": "Stouts", "text": "Stouts are dark, \u00fcber dark."}]

CONVERSATIONS = {
    "none": [], "user": [USER], "answered": [USER, ANSWER], "three": [USER, PLAIN, SECOND], "four": [USER, ANSWER, SECOND, PLAIN],
    "system": [SYSTEM, USER], "system answered": [SYSTEM, USER, PLAIN], "system four": [SYSTEM, USER, ANSWER, SECOND, PLAIN],
    "assistant first": [PLAIN, USER], "tools": [USER, CALL, RESULT, PLAIN], "many tools": [SYSTEM, USER, CALLS, RESULT, RESULT, PLAIN, SECOND, CALL], "parts": [PARTS, PLAIN]}
SETTINGS = {
    "": {}, "prompt": {"add_generation_prompt": True},
    "all": {"add_generation_prompt": True, "tools": TOOLS, "documents": DOCUMENTS, "enable_thinking": False, "xml_tools": TOOLS[:1], "controls": {"citations": True}, "builtin_tools": ["brew", "interpreter"], "tools_in_user_message": False},
    "tools": {"tools": TOOLS, "date_string": "1 Jan 2020", "explode": True}}


def inputs():
    for name, messages in CONVERSATIONS.items():
        for setting, variables in SETTINGS.items():
            yield f"{name}, {setting}", {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None, **variables}


def own(golden):
    for name, template in TEMPLATES.items():
        cases = {}
        for key, variables in inputs():
            text, spans = jinja_reference.render(template, variables)
            cases[key] = {"text": text, "generation": spans} if text is not None else None
        written = sum(case is not None for case in cases.values())
        if written < 6:
            raise SystemExit(f"{name} writes only {written} of {len(cases)} inputs")
        golden["own"][name] = {"template": template, "cases": cases}


def fnv1a(data):
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 % 2**64
    return f"{value:016x}"


def shared(folder, golden):
    for path in sorted(folder.glob("*.jinja")):
        hashes = golden["shared"][path.name] = {}
        for key, variables in inputs():
            text, _ = jinja_reference.render(path.read_text(), variables)
            hashes[key] = None if text is None else fnv1a(text.encode())


def fuzzed(program):
    driver = fuzz_jinja.Driver(program)
    seed = SEED
    while True:
        template, variables = fuzz_jinja.case(seed)
        reference = jinja_reference.render(template, variables)
        wrong, written = fuzz_jinja.judge(reference, driver.render(template, variables))
        if wrong:
            raise SystemExit(f"seed {seed}: {wrong}")
        if len(template) < 500 and (written or (reference[0] is None and seed % 8 == 0)):
            yield {"template": template, "variables": variables}
        seed += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path)
    parser.add_argument("--driver")
    arguments = parser.parse_args()
    before = json.loads(OUT.read_text()) if OUT.exists() else {"shared": {}, "fuzz": []}
    golden = {"inputs": dict(inputs()), "own": {}, "shared": before["shared"], "fuzz": []}
    own(golden)
    if arguments.shared:
        golden["shared"] = {}
        shared(arguments.shared, golden)
    cases = before["fuzz"]
    if arguments.driver:
        source = fuzzed(arguments.driver)
        cases = [next(source) for _ in range(N_FUZZ)]
    for case in cases:
        text, spans = jinja_reference.render(case["template"], case["variables"])
        golden["fuzz"].append({"template": case["template"], "variables": case["variables"], "text": text, "generation": spans if text is not None else []})
    OUT.write_text(json.dumps(golden, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
