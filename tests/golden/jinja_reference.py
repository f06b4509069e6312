"""What Jinja2 writes with the environment of transformers' apply_chat_template; for make_jinja.py and
fuzz_jinja.py. The clock stands still at EPOCH, in UTC.
"""
import datetime
import os
import time

os.environ["TZ"] = "UTC"
time.tzset()

from transformers.utils import chat_template_utils  # noqa: E402

EPOCH = 1700000000


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(EPOCH, tz)


chat_template_utils.datetime = Clock


def byte_spans(text, spans):
    """Spans of characters, which may overlap, as a set of bytes: in order, joined where they touch."""
    joined = []
    for begin, end in sorted(spans):
        begin, end = min(begin, len(text)), min(end, len(text))
        if begin == end:
            continue
        if joined and joined[-1][1] >= begin:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([begin, end])
    return [[len(text[:begin].encode()), len(text[:end].encode())] for begin, end in joined]


def render(template, variables):
    """(text, spans of generation blocks in bytes), or (None, why it is refused)."""
    try:
        compiled = chat_template_utils._cached_compile_jinja_template(template)
        blocks, spans = [], []
        with compiled.environment.activate_tracker(blocks, spans):
            for block in compiled.generate(**variables):
                blocks.append(block)
        text = "".join(blocks)
        text.encode()
        return text, byte_spans(text, spans)
    except Exception as error:  # whatever Python raises refuses the template
        return None, f"{type(error).__name__}: {error}"
