#!/usr/bin/env python3
"""The same in Python, counting words: length.py [WORDS]"""
import json
import sys

target = float(sys.argv[1]) if len(sys.argv) > 1 else 25.0
for line in sys.stdin:
    n_word = len(json.loads(line)["response"].split())
    print(json.dumps({"reward": 1.0 - abs(n_word - target) / target}), flush=True)
