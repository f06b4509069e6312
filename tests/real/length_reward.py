"""A reward program: 1 for an answer of TARGET bytes, less by the square of its distance in targets, at
least -1.

Usage: length_reward.py TARGET      (reward_model.command)
"""

import json
import sys

target = float(sys.argv[1])
for line in sys.stdin:
    n = len(json.loads(line)["response"].encode())
    print(json.dumps({"reward": max(-1.0, 1.0 - ((n - target) / target) ** 2)}), flush=True)
