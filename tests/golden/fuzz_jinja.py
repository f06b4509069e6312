#!/usr/bin/env python3
"""Compares the interpreter of chat templates with Jinja2 on random templates and values.

    fuzz_jinja.py DRIVER [--seed N] [--cases N]

DRIVER is build/release/bin/jinja_driver. A case fails if both write and the texts (or the spans of
generation blocks) differ, if only the interpreter writes, or if it refuses what Jinja2 writes without
saying "not supported", or "not known" (a function or method that is refused early, even where it is
not reached). make_jinja.py keeps some of the cases for the tests.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import warnings

import jinja_reference

warnings.simplefilter("ignore")

STRINGS = ["", "a", "user", "assistant", "Hello World", " \t spaced \n", "x,y,,z", "ü ß é", "日本語", "😀 ok", "it's",
           'say "hi"', "a\\nb", "line1\nline2\n\nline4", "<b>&amp;</b>", "12", "-7", "3.5", "1e3", "ABC def", "a.b.c",
           "{}", "%s and %d", "<think>why</think>rest", "\u00a0nbsp\u2003", "tab\there", "null\x00in", "Zażółć", "'", "0"]
JSON = ["", "", "(indent=2)", "(indent=4)", "(sort_keys=true)", "(ensure_ascii=True)", "(separators=(',', ':'))", "(indent='\t')"]
ROUND = ["", "(1)", "(2)", "(0, 'floor')", "(1, 'ceil')"]
NAMES = ["s", "t", "n", "m", "f", "l", "k", "d", "e", "b", "none_var", "messages", "tools", "missing", "x", "y"]


class Values:
    def __init__(self, r):
        self.r = r

    def scalar(self):
        r = self.r
        return r.choice([lambda: r.choice(STRINGS), lambda: r.randint(-5, 12), lambda: r.choice([0.0, 1.5, -2.25, 1e16, 1e-7, 100.0]),
                         lambda: r.random() < 0.5, lambda: None])()

    def value(self, depth=2):
        r = self.r
        if depth == 0 or r.random() < 0.5:
            return self.scalar()
        if r.random() < 0.5:
            return [self.value(depth - 1) for _ in range(r.randint(0, 4))]
        return {r.choice(["a", "b", "role", "content", "items", "name", "k 1", "é"]): self.value(depth - 1)
                for _ in range(r.randint(0, 4))}

    def message(self):
        r = self.r
        message = {"role": r.choice(["system", "user", "assistant", "tool"]), "content": r.choice(STRINGS)}
        if r.random() < 0.2:
            message["tool_calls"] = [{"type": "function", "function": {"name": r.choice(["f", "g"]), "arguments": self.value(2)}}]
        if r.random() < 0.1:
            message["content"] = [{"type": "text", "text": r.choice(STRINGS)}]
        return message

    def variables(self):
        r = self.r
        return {"messages": [self.message() for _ in range(r.randint(0, 4))], "s": r.choice(STRINGS), "t": r.choice(STRINGS),
                "n": r.randint(-3, 9), "m": r.randint(0, 4), "f": r.choice([0.5, 2.0, -1.25, 1e20, 0.1]),
                "l": [self.value(1) for _ in range(r.randint(0, 4))], "k": [r.randint(0, 5) for _ in range(r.randint(0, 5))],
                "w": [r.choice(STRINGS) for _ in range(r.randint(0, 4))], "d": {r.choice("abcé"): self.value(1) for _ in range(r.randint(0, 4))},
                "e": {"items": 1, "get": "g", "role": "user", "content": r.choice(STRINGS)}, "b": r.random() < 0.5, "none_var": None,
                "tools": r.choice([None, [], [{"name": "f", "parameters": {"x": 1}}]])}


def quote(text, r):
    q = r.choice("'\"")
    return q + text.replace("\\", "\\\\").replace(q, "\\" + q).replace("\n", r.choice(["\\n", "\n"])) + q


class Templates:
    """Expressions by kind (string, number, list, dict, any), so that many cases do not end in a type error."""

    def __init__(self, r):
        self.r = r
        self.names = list(NAMES)
        self.macros = []
        self.namespaces = []
        self.loops = 0

    def pick(self, *choices):
        return self.r.choice(choices)()

    def string(self, d):
        r = self.r
        if d <= 0:
            return self.pick(lambda: quote(r.choice(STRINGS), r), lambda: r.choice(["s", "t", "s", "t", "e.content", "e['role']"]),
                             lambda: r.choice(self.names))
        s, n = lambda: self.string(d - 1), lambda: self.number(d - 1)
        return self.pick(
            lambda: f"{s()} + {s()}", lambda: f"{s()} ~ {self.any(d - 1)}", lambda: f"({s()}){self.method()}",
            lambda: f"{self.atom(s())} | {self.string_filter()}", lambda: f"({s()})[{self.slice()}]", lambda: f"({s()})[{n()}]",
            lambda: f"({s()} if {self.any(d - 1)} else {s()})", lambda: f"{self.list(d - 1)} | join({s()})",
            lambda: f"{self.any(d - 1)} | tojson{r.choice(JSON)}",
            lambda: f"{self.any(d - 1)} | string", lambda: f"({s()} or {s()})", lambda: f"{s()} * {r.randint(-1, 3)}",
            lambda: f"'%s-%s' % ({self.any(d - 1)}, {s()})", lambda: f"'%{r.choice(['d', '5d', '-5d', '05d', '+d', '.2f', '8.3f', 'g', 'e', 's', '10s', '-10s', '.2s', 'r', 'x', 'o'])}|' % {self.pick(n, s)}",
            lambda: f"'{r.choice(['{}', '{0}-{0}', '{:>5}', '{:<7}|', '{:^9}', '{:05d}', '{:.2f}', '{!r}', '{{}}{}', '{:,}', '{:+d}', '{:*^11}', '{:x}', '{:%}', '{:8.3f}', '{:e}'])}'.format({self.pick(n, s)})",
            lambda: f"'{{a}}{{b}}'.format(a={self.any(d - 1)}, b={s()})", lambda: f"{s()} | default({s()}{r.choice(['', ', true'])})",
            lambda: f"'%s' | format({self.any(d - 1)})", lambda: f"({s()}) | replace({s()}, {s()}{r.choice(['', ', 1'])})")

    def method(self):
        r = self.r
        q = lambda: quote(r.choice(STRINGS[:20]), r)
        return r.choice([
            ".strip()", ".lstrip()", ".rstrip()", f".strip({q()})", f".lstrip({q()})", f".rstrip({q()})", ".upper()", ".lower()", ".title()",
            ".capitalize()", ".swapcase()", f".split({q()})", ".split()", f".split({q()})[-1]", f".split({q()}, 1)", ".rsplit(None, 1)", f".rsplit({q()}, 1)[0]",
            f".startswith({q()})", f".endswith({q()})", f".startswith(({q()}, {q()}))", f".replace({q()}, {q()})", f".replace({q()}, {q()}, 1)", f".find({q()})", f".rfind({q()})",
            f".count({q()})", ".splitlines()", ".splitlines(true)", ".isdigit()", ".isalpha()", ".isalnum()", ".isspace()", ".isupper()", ".islower()", f".join(w)",
            f".removeprefix({q()})", f".removesuffix({q()})", f".partition({q()})", f".rpartition({q()})", f".center({r.randint(0, 12)})", f".ljust({r.randint(0, 9)}, '*')", f".rjust({r.randint(0, 9)})",
            f".zfill({r.randint(0, 8)})", ".nothing", ".append", f".index({q()})", ".isascii()", ".isdecimal()"])

    def string_filter(self):
        r = self.r
        return r.choice(["trim", "upper", "lower", "title", "capitalize", "length", "string", "indent", "indent(2)", "indent(2, true)", "indent(width=3, first=false, blank=true)",
                         "replace('a', 'b')", "replace('', '-')", "list", "first", "last", "reverse", "wordcount", "truncate(5)", "truncate(8, true)", "truncate(9, false, '..', 0)", "int", "float",
                         "int(7)", "default('x')", "trim('ab ')", "center(20)", "e", "escape", "safe", "urlencode", "tojson", "count", "list | join('|')", "sort | join", "unique | list", "batch(2) | list",
                         "map('upper') | join", "select('in', 'aeiou') | list", "forceescape", "trim | length", "upper | lower"])

    def number(self, d):
        r = self.r
        if d <= 0:
            return self.pick(lambda: str(r.randint(0, 12)), lambda: r.choice(["n", "m", "f", "loop.index" if self.loops else "n"]),
                             lambda: r.choice(["1.5", "0.1", "2e3", "1_000", "0x1F", "true", "100.0", "1e16"]))
        n = lambda: self.number(d - 1)
        return self.pick(
            lambda: f"{n()} {r.choice(['+', '-', '*', '/', '//', '%', '**'])} {n()}", lambda: f"({n()} {r.choice(['+', '-', '*', '//', '%'])} {n()})",
            lambda: f"-{n()}", lambda: f"{self.list(d - 1)} | length", lambda: f"{self.string(d - 1)} | length", lambda: f"{n()} | abs", lambda: f"({n()}) | round{r.choice(ROUND)}",
            lambda: f"({n()}) | int", lambda: f"({n()}) | float", lambda: f"k | sum", lambda: f"k | {r.choice(['min', 'max', 'first', 'last'])}", lambda: f"({n()} if {self.any(d - 1)} else {n()})")

    def list(self, d):
        r = self.r
        if d <= 0:
            return self.pick(lambda: r.choice(["l", "k", "w", "messages", "w", "k"]), lambda: "[" + ", ".join(self.string(0) for _ in range(r.randint(0, 3))) + "]",
                             lambda: f"range({r.choice(['5', 'n', '1, 6', '0, 9, 2', '5, 0, -1', 'm'])})", lambda: r.choice(["d", "e", "tools", "missing"]))
        x = lambda: self.list(d - 1)
        return self.pick(
            lambda: f"({x()})[{self.slice()}]", lambda: f"{x()} + {x()}", lambda: f"[{self.any(d - 1)}, {self.any(d - 1)}]", lambda: f"({self.any(d - 1)}, {self.any(d - 1)})",
            lambda: f"{self.atom(x())} | {self.list_filter(d - 1)}", lambda: f"({x()}) | list", lambda: f"d.{r.choice(['items', 'keys', 'values'])}()", lambda: f"d | {r.choice(['items', 'dictsort', 'list'])}",
            lambda: f"({self.string(d - 1)}).split({r.choice(['', quote(',', r), quote(' ', r)])})", lambda: f"{x()} * {r.randint(0, 2)}")

    def list_filter(self, d):
        r = self.r
        return r.choice(["sort", "sort(reverse=true)", "reverse | list", "reverse", "unique | list", "unique", "map('string') | list", "map('upper')", "map(attribute='role') | list", "map(attribute='content')",
                         "selectattr('role', 'equalto', 'user') | list", "selectattr('role', 'eq', 'user')", "rejectattr('role', 'in', ['user', 'tool']) | list", "selectattr('tool_calls')", "selectattr('tool_calls', 'defined') | list",
                         "select | list", "reject('none') | list", "select('string') | list", "select('number')", "reject('odd') | list", "batch(2) | list", "batch(3, 'z') | list", "slice(2) | list", "slice(3, 0) | list",
                         "groupby('role') | list", "groupby('role')", "map('length') | list", "first", "last", "length", "list", "join", "join(', ')", "join('-', attribute='role')", "min", "max", "sum", "map('tojson') | join('\\n')",
                         "map('trim') | join", "sort(attribute='role') | map(attribute='content') | list", "sort(attribute='role,content')", "map(attribute='x', default='q') | list", "dictsort", "tojson", "string", "items | list", "map('default', 'u') | list",
                         "select('gt', 2) | list", "select('divisibleby', 2) | list", "map('int') | sum", "sum(start=3)", "max(attribute='role')", "unique(attribute='role') | list", "map(attribute='content.0')", "map('replace', 'a', 'b') | list"])

    def atom(self, text):
        return f"({text})" if self.r.random() < 0.6 else text

    def slice(self):
        part = lambda: self.r.choice(["", "", "1", "-1", "2", "-2", "n", "0", "m", "100", "-100", "none"])
        return f"{part()}:{part()}" + (f":{self.r.choice(['', '1', '2', '-1', '-2'])}" if self.r.random() < 0.4 else "")

    def test(self, d):
        r = self.r
        a = lambda: self.any(d - 1)
        return self.pick(
            lambda: f"{a()} {r.choice(['==', '!=', '==', '<', '<=', '>', '>='])} {a()}", lambda: f"{self.number(d - 1)} {r.choice(['<', '<=', '>', '>='])} {self.number(d - 1)}",
            lambda: f"{self.number(0)} < {self.number(0)} <= {self.number(0)}", lambda: f"{a()} {r.choice(['in', 'not in'])} {self.list(d - 1)}", lambda: f"{self.string(0)} in {self.string(d - 1)}",
            lambda: f"{self.atom(a())} is {r.choice(['', '', 'not '])}{self.test_name()}", lambda: f"not {a()}", lambda: f"({a()} and {a()})", lambda: f"({a()} or {a()})", lambda: f"{a()} and {a()} or {a()}")

    def test_name(self):
        return self.r.choice(["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "callable", "odd", "even", "divisibleby(2)", "divisibleby 3",
                              "eq 1", "equalto('user')", "ne(2)", "lt 3", "ge(n)", "in [1, 'a']", "upper", "lower", "sameas true", "sameas none", "escaped", "filter", "test", "gt 0", "lessthan(5)", "in w"])

    def dict(self, d):
        r = self.r
        if d <= 0:
            return r.choice(["d", "e", "messages[0]", "messages[-1]", "{}"])
        return self.pick(lambda: "{" + ", ".join(f"{quote(r.choice(['a', 'b', 'role']), r)}: {self.any(d - 1)}" for _ in range(r.randint(0, 3))) + "}",
                         lambda: f"dict({r.choice(['d', 'e', '', '[(1, 2)]'])}{''})", lambda: f"dict(a={self.any(d - 1)}, b={self.any(d - 1)})", lambda: f"dict(d, z={self.any(d - 1)})", lambda: "{1: 'one', 2.0: none, true: 3, (1, 2): 4}", lambda: f"{self.dict(d - 1)}.copy()")

    def any(self, d):
        r = self.r
        if d <= 0:
            return self.pick(lambda: r.choice(self.names), lambda: self.string(0), lambda: self.number(0), lambda: self.list(0), lambda: r.choice(["none", "true", "False", "None", "[]", "{}", "()"]))
        return self.pick(
            lambda: self.string(d), lambda: self.number(d), lambda: self.list(d), lambda: self.dict(d), lambda: self.test(d), lambda: self.test(d),
            lambda: f"{self.dict(d - 1)}.{r.choice(['role', 'content', 'a', 'items', 'get', 'missing', 'tool_calls', 'keys', 'update', 'pop'])}", lambda: f"({self.dict(d - 1)})[{self.any(d - 1)}]",
            lambda: f"{self.dict(d - 1)}.get({self.string(0)}{r.choice(['', ', 5'])})", lambda: f"({self.list(d - 1)})[{self.number(d - 1)}]", lambda: f"{r.choice(self.names)}.{r.choice(['a', 'b', '0', 'role', 'x.y'])}",
            lambda: f"({self.any(d - 1)} if {self.test(d - 1)})", lambda: self.loop(), lambda: self.call(d - 1), lambda: f"{r.choice(self.namespaces)}.{r.choice('abc')}" if self.namespaces else "n")

    def loop(self):
        if not self.loops:
            return "s"
        r = self.r
        return "loop." + r.choice(["index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem", "cycle('a', 'b')", "depth", "depth0", "changed(x)", "previtem.role", "nextitem.content"])

    def call(self, d):
        if not self.macros:
            return "t"
        name, parameters = self.r.choice(self.macros)
        arguments = [self.any(d) for _ in range(self.r.randint(0, len(parameters) + (self.r.random() < 0.1)))]
        if parameters and self.r.random() < 0.3 and len(arguments) < len(parameters):
            arguments.append(f"{parameters[-1]}={self.any(d)}")
        return f"{name}({', '.join(arguments)})"

    # statements

    def tag(self, text):
        r = self.r
        return "{%" + r.choice(["", "", "", "-", "-", "+"]) + r.choice([" ", " ", ""]) + text + r.choice([" ", " ", ""]) + r.choice(["", "", "", "-", "-", "+"]) + "%}"

    def data(self):
        return self.r.choice(["\n", "\n", " ", "", "text", "  \n  ", "\n\n", "<|im_start|>", "a\n    ", "\t", " x ", "é\n", "}}", "# c", "{ ", "\r\n"])

    def output(self, d):
        r = self.r
        expression = self.any(d)
        left, right = r.choice(["{{", "{{ ", "{{- ", "{{-", "{{+ "]), r.choice(["}}", " }}", " -}}", " }}"])
        return left + (" " if expression[0] in "{-+" else "") + expression + (" " if expression[-1] in "}-" else "") + right

    def body(self, d):
        return self.data() + "".join(self.statement(d - 1) + self.data() for _ in range(self.r.randint(1, 2 if d < 2 else 3)))

    def statement(self, d):
        if d <= 0:
            return self.output(self.r.randint(0, 2))
        return self.pick(self.output_statement, self.output_statement, lambda: self.if_(d), lambda: self.for_(d), lambda: self.for_(d), lambda: self.set_(d), lambda: self.set_(d), lambda: self.macro(d), lambda: self.namespace(d),
                         lambda: self.call_block(d), lambda: self.filter_block(d), lambda: self.set_block(d), lambda: self.with_(d), lambda: self.comment(), lambda: self.raw(), lambda: self.generation(d))

    def output_statement(self):
        return self.output(self.r.randint(1, 3))

    def if_(self, d):
        out = self.tag(f"if {self.any(1)}") + self.body(d)
        if self.r.random() < 0.3:
            out += self.tag(f"elif {self.test(1)}") + self.body(d)
        if self.r.random() < 0.4:
            out += self.tag("else") + self.body(d)
        return out + self.tag("endif")

    def for_(self, d):
        r = self.r
        target, over = r.choice([("x", self.list(1)), ("message", "messages"), ("x", "messages"), ("i", "range(n)"), ("a, b", "d.items()"), ("a, b", "d | dictsort"), ("x", self.list(2)), ("message", "messages[1:]"), ("x, y", "[(1, 2), 'ab']"),
                                 ("a, (b, c)", "[(1, (2, 3))]"), ("g", "messages | groupby('role')"), ("x", "messages | selectattr('role', 'equalto', 'user')")])
        head = f"for {target} in {over}" + (f" if {self.test(1)}" if r.random() < 0.2 else "")
        names, self.names = self.names, self.names + [name for name in target.replace("(", "").replace(")", "").replace(",", " ").split()] * 2
        if target == "message":
            self.names += ["message.role", "message.content", "message['content']"] * 2
        if target == "g":
            self.names += ["g.grouper", "g.list", "g[0]"]
        self.loops += 1
        body = self.body(d)
        if r.random() < 0.2:
            body += self.tag(f"if {self.test(1)}") + self.tag(r.choice(["break", "continue"])) + self.tag("endif") + self.body(1)
        self.loops -= 1
        self.names = names
        return self.tag(head) + body + (self.tag("else") + self.body(d) if r.random() < 0.2 else "") + self.tag("endfor")

    def set_(self, d):
        r = self.r
        if self.namespaces and r.random() < 0.4:
            return self.tag(f"set {r.choice(self.namespaces)}.{r.choice('abc')} = {self.any(2)}")
        if r.random() < 0.15:
            return self.tag(f"set x, y = {r.choice(['1, 2', '(s, t)', 'k', self.any(1)])}")
        name = r.choice(["x", "y", "s", "t", "q", "messages" if r.random() < 0.3 else "q", "n"])
        if name == "q" and self.names is not None and "q" not in self.names:
            self.names = self.names + ["q"]
        return self.tag(f"set {name} = {self.any(2)}")

    def set_block(self, d):
        r = self.r
        return self.tag(f"set {r.choice(['x', 'y', 'q'])}{r.choice(['', '', ' | upper', ' | trim', ' | trim | length'])}") + self.body(d) + self.tag("endset")

    def macro(self, d):
        r = self.r
        name = f"m{len(self.macros)}"
        parameters = ["p", "x", "z"][:r.randint(0, 3)]
        defaults = [f"{p}={self.any(1)}" if i >= len(parameters) - 1 and r.random() < 0.5 else p for i, p in enumerate(parameters)]
        state = self.names, self.loops
        self.names, self.loops = self.names + parameters * 2 + r.choice([[], ["varargs"], ["kwargs"], ["caller"], ["caller()"]]), 0
        body = self.body(d) + r.choice(["", "", "{{ caller() }}", "{{ caller(1) }}", "{{ varargs }}{{ kwargs }}"])
        self.names, self.loops = state
        self.macros.append((name, parameters))
        return self.tag(f"macro {name}({', '.join(defaults)})") + body + self.tag("endmacro")

    def namespace(self, d):
        name = f"ns{len(self.namespaces)}"
        out = self.tag(f"set {name} = namespace({self.r.choice(['a=1, b=s', 'a=[], b=none, c=false', 'd', 'd, b=2', ''])})")
        if d == 3:  # elsewhere it may be out of sight when it is used
            self.namespaces.append(name)
        return out

    def call_block(self, d):
        if not self.macros:
            return self.output(1)
        loops, self.loops = self.loops, 0
        out = self.tag(f"call{self.r.choice(['', '', '(u)', '(u=1)'])} {self.call(1)}".replace("call t", "call m0()")) + self.body(d) + self.tag("endcall")
        self.loops = loops
        return out

    def filter_block(self, d):
        return self.tag(f"filter {self.r.choice(['upper', 'trim', 'indent(2)', 'replace(s, t)', 'trim', 'trim | upper'])}") + self.body(d) + self.tag("endfilter")

    def with_(self, d):
        return self.tag(f"with x = {self.any(1)}, y = x") + self.body(d) + self.tag("endwith")

    def generation(self, d):
        loops, self.loops = self.loops, 0
        out = self.tag("generation") + self.body(d) + self.tag("endgeneration")
        self.loops = loops
        return out

    def comment(self):
        return self.r.choice(["{# c #}", "{#- c -#}", "{# a\n b #}", "{#+ c +#}", "{##}", "{#-#}"])

    def raw(self):
        r = self.r
        return r.choice(["{% raw %}", "{%- raw -%}", "{%+ raw %}", "{%raw%}"]) + r.choice(["{{ x }}", "\n{% if %}\n", " a ", ""]) + self.tag("endraw")

    def template(self):
        return "".join(self.data() + self.statement(self.r.randint(1, 3)) for _ in range(self.r.randint(1, 4))) + self.data()


def case(seed):
    r = random.Random(seed)
    return Templates(r).template(), Values(r).variables()


class Driver:
    def __init__(self, program):
        environment = dict(os.environ, SOURCE_DATE_EPOCH=str(jinja_reference.EPOCH), TZ="UTC")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def render(self, template, variables):
        request = {"template": template, "variables": variables, "tracked": "messages"}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("the driver died on " + json.dumps(request))
        return json.loads(answer)


def judge(reference, answer):
    """What is wrong, or None; and whether both wrote."""
    text, spans = reference
    if text is None:
        return ("only the interpreter writes" if "text" in answer else None), False
    if "text" not in answer:
        named = any(words in answer["error"] for words in ("not supported", "is not known"))
        return (None if named else "refused without a name"), False
    if answer["text"] != text:
        return "another text", True
    return (None if [span[:2] for span in answer["generation"]] == spans else "other spans"), True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=10000)
    arguments = parser.parse_args()
    driver = Driver(arguments.driver)
    n_written = n_refused = n_unsupported = n_wrong = 0
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        template, variables = case(seed)
        reference = jinja_reference.render(template, variables)
        answer = driver.render(template, variables)
        wrong, written = judge(reference, answer)
        n_written += written
        n_refused += reference[0] is None
        n_unsupported += reference[0] is not None and not written
        if wrong:
            n_wrong += 1
            print(f"seed {seed}: {wrong}\n  template  {template!r}\n  variables {variables!r}\n  Jinja2    {reference!r}\n  here      {answer!r}")
    print(f"{arguments.cases} cases: {n_written} written by both, {n_refused} refused by Jinja2, {n_unsupported} not supported here, {n_wrong} wrong")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
