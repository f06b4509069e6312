#!/usr/bin/env python3
"""Makes tests/golden/chat.json: conversations rendered by Jinja as transformers does.

    make_chat.py [--real FOLDER]     (FOLDER holds SmolLM2-135M-Instruct.Q4_1.gguf)

Needs jinja2, and gguf for the template of the real model (kept from the last run without --real).
"""
import argparse
import json
import pathlib

import jinja2.sandbox

OUT = pathlib.Path(__file__).resolve().parent / "chat.json"

LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
          "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
          "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
          "{{ content }}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
          "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
          "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
          "{% if loop.index0 == 0 and system_message != false %}"
          "{% set content = '<<SYS>>\\n' + system_message.strip() + '\\n<</SYS>>\\n\\n' + message['content'].strip() %}"
          "{% else %}{% set content = message['content'].strip() %}{% endif %}"
          "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content + ' [/INST]' }}"
          "{% elif message['role'] == 'assistant' %}{{ ' '  + content + ' ' + eos_token }}{% endif %}{% endfor %}")
MISTRAL = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
           "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
           "{{ message['content'] + eos_token%SPACE% }}{% endif %}{% endfor %}")
ZEPHYR = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
          "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
          "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
          "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
          "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")

SYSTEM = {"role": "system", "content": "Be brief. "}
TURNS = [{"role": "user", "content": " What is an ale?\n"}, {"role": "assistant", "content": "A beer.\n"},
         {"role": "user", "content": "Warm?"}, {"role": "assistant", "content": "Yes, \u00fcber."}]


def smollm2_template(real):
    if real is None:
        return json.loads(OUT.read_text())["templates"]["smollm2"]
    import gguf
    fields = gguf.GGUFReader(real / "SmolLM2-135M-Instruct.Q4_1.gguf").fields
    return fields["tokenizer.chat_template"].contents()


def render(template, messages, generation):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=generation,
                                                    bos_token="<s>", eos_token="</s>")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--real", type=pathlib.Path)
    templates = {"smollm2": smollm2_template(parser.parse_args().real), "llama3": LLAMA3, "llama2": LLAMA2,
                 "mistral1": MISTRAL.replace("%SPACE%", " + ' '"), "mistral2": MISTRAL.replace("%SPACE%", ""),
                 "zephyr": ZEPHYR}
    cases = []
    for name, template in templates.items():
        for system in (False, True):
            if system and name.startswith("mistral"):
                continue
            for n in (1, 2, 3, 4):
                messages = [SYSTEM] * system + TURNS[:n]
                text = render(template, messages, n % 2 == 1)
                cases.append({"template": name, "messages": messages, "generation": n % 2 == 1, "text": text})
    OUT.write_text(json.dumps({"templates": templates, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
