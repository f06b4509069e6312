"""Prompts that ask for one short sentence: the titles of a Stack Exchange dump's questions, as chats.

Usage: short_prompts.py Posts.xml.gz      rows {"prompt"} for quipu-prep jsonl, on standard output
"""

import gzip
import json
import sys
from xml.etree import ElementTree

with gzip.open(sys.argv[1]) as file:
    for _, post in ElementTree.iterparse(file):
        if post.get("PostTypeId") == "1" and len(post.get("Title")) < 100:
            print(json.dumps({"prompt": f"<|im_start|>user\n{post.get('Title')} Answer in one short "
                                        "sentence.<|im_end|>\n<|im_start|>assistant\n"}))
