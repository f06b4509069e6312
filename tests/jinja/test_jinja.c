/* Chat templates: what Jinja2 writes with transformers' environment (tests/golden/make_jinja.py),
 * byte for byte, with the spans of generation blocks; which message wrote what; refusals by name;
 * bounds; work that grows with the conversation and not faster. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/json.h"
#include "testing.h"
#include "jinja/jinja.h"

static json_t *load(const char *path)
{
    json_error_t where;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &where);
    if (json == NULL)
        printf("%s:%d: %s\n", path, where.line, where.text);
    return json;
}

static qp_error_t render(const char *template, size_t n, const json_t *variables,
                         qp_jinja_output_t *output)
{
    qp_jinja_t *jinja = NULL;
    QP_TRY(qp_jinja_compile("template", template, n, &jinja));
    qp_error_t error = qp_jinja_render(jinja, variables, "messages", output);
    qp_jinja_destroy(&jinja);
    return error;
}

/* --- what Jinja2 writes --------------------------------------------------------------------------
 */

static bool same_spans(const qp_jinja_spans_t *spans, const json_t *expected)
{
    bool same = (size_t)spans->n == json_array_size(expected);
    for (int64_t i = 0; same && i < spans->n; i++) {
        const json_t *pair = json_array_get(expected, (size_t)i);
        same = (json_int_t)spans->span[i].begin == json_integer_value(json_array_get(pair, 0)) &&
               (json_int_t)spans->span[i].end == json_integer_value(json_array_get(pair, 1));
    }
    return same;
}

/* One template with one set of variables: the text, or a refusal where \a text is null. */
static void check_case(const char *name, const json_t *template, const json_t *variables,
                       const json_t *text, const json_t *generation)
{
    qp_jinja_output_t output = {0};
    qp_error_t error =
        render(json_string_value(template), json_string_length(template), variables, &output);
    if (!json_is_string(text)) {
        CHECK_MSG(error != NULL && error->code == QP_INPUT, "%s: not refused", name);
        qp_error_destroy(&error);
    } else if (CHECK_MSG(error == NULL, "%s: %s", name, error != NULL ? error->message : "")) {
        const size_t n = json_string_length(text);
        CHECK_MSG(output.text.n == n &&
                      (n == 0 || memcmp(output.text.data, json_string_value(text), n) == 0),
                  "%s: wrote '%s', not '%s'", name, n > 0 ? output.text.data : "",
                  json_string_value(text));
        CHECK_MSG(same_spans(&output.generation, generation), "%s: other generation spans", name);
    }
    qp_error_destroy(&error);
    qp_jinja_output_fini(&output);
}

static void test_own_templates(const json_t *golden)
{
    json_t *own = json_object_get(golden, "own"), *inputs = json_object_get(golden, "inputs");
    const char *name, *key;
    json_t *entry, *wanted;
    int n_case = 0;
    CHECK(json_object_size(own) >= 45);
    json_object_foreach(own, name, entry)
    {
        json_object_foreach(json_object_get(entry, "cases"), key, wanted)
        {
            char *label = qp_format("%s, %s", name, key);
            check_case(label, json_object_get(entry, "template"), json_object_get(inputs, key),
                       json_object_get(wanted, "text"), json_object_get(wanted, "generation"));
            qp_free(label);
            n_case++;
        }
    }
    CHECK(n_case >= 2000);
}

static void test_random_templates(const json_t *golden)
{
    size_t i;
    json_t *entry;
    CHECK(json_array_size(json_object_get(golden, "fuzz")) >= 300);
    json_array_foreach(json_object_get(golden, "fuzz"), i, entry)
    {
        char *label = qp_format("random template %zu", i);
        check_case(label, json_object_get(entry, "template"), json_object_get(entry, "variables"),
                   json_object_get(entry, "text"), json_object_get(entry, "generation"));
        qp_free(label);
    }
}

/* What Jinja2 3.1 writes, where the templates of the goldens do not go: order among equals, and
 * numbers of two types that are one key, in small dicts and in hashed ones. */
static void test_order_and_keys(void)
{
#define ROWS "[{'k': 1, 'n': 'a'}, {'k': 0, 'n': 'b'}, {'k': 1, 'n': 'c'}, {'k': 0, 'n': 'd'}]"
#define TEN "{0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e', 5: 'f', 6: 'g', 7: 'h', 8: 'i', 9: 'j'}"
    static const struct {
        const char *template, *expected;
    } cases[] = {
        {"{% for x in " ROWS " | sort(attribute='k') %}{{ x.n }}{% endfor %}", "bdac"},
        {"{% for x in " ROWS " | sort(true, attribute='k') %}{{ x.n }}{% endfor %}", "acbd"},
        {"{% set d = {1: 'one', true: 'yes', 1.0: 'float'} %}{{ d | length }} {{ d }}",
         "1 {1: 'float'}"},
        {"{{ {2.0: 'x'}[2] }} {{ 1 in {1.0: 0} }} {{ 1.5 in {1: 0} }}", "x True False"},
        {"{{ " TEN "[7.0] }} {{ true in " TEN " }} {{ 7.5 in " TEN " }}", "h True False"},
    };
#undef TEN
#undef ROWS
    json_t *variables = json_object();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *template = json_string(cases[i].template), *text = json_string(cases[i].expected);
        json_t *generation = json_array();
        check_case(cases[i].template, template, variables, text, generation);
        json_decref(generation);
        json_decref(text);
        json_decref(template);
    }
    json_decref(variables);
}

/* --- who wrote what -----------------------------------------------------------------------------
 */

/* "0:text 2:text": the runs of bytes of output->items. */
static void check_items(const char *template, const char *expected)
{
    json_t *variables =
        json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:s}]}", "messages", "role", "system", "content",
                  "\xc3\xa4", "role", "user", "content", "b", "role", "assistant", "content", "c");
    qp_jinja_output_t output = {0};
    qp_str_t runs = {0};
    CHECK_OK(render(template, strlen(template), variables, &output));
    for (int64_t i = 0; i < output.items.n; i++) {
        const qp_jinja_span_t *span = &output.items.span[i];
        qp_str_printf(&runs, "%s%lld:%.*s", i > 0 ? " " : "", (long long)span->item,
                      (int)(span->end - span->begin), output.text.data + span->begin);
    }
    CHECK_MSG(strcmp(runs.data != NULL ? runs.data : "", expected) == 0, "%s: %s, not %s", template,
              runs.data, expected);
    qp_str_fini(&runs);
    qp_jinja_output_fini(&output);
    json_decref(variables);
}

static void test_items(void)
{
    static const char all[] = "0:\xc3\xa4! 1:b! 2:c!";
    static const struct {
        const char *template, *expected;
    } cases[] = {
        {"<{% for m in messages %}{{ m.content }}!{% endfor %}>", all},
        {"{% set x = messages %}{% for m in x %}{{ m.content }}{{ '!' }}{% endfor %}.", all},
        {"{% for m in messages[1:] %}{{ m.content }}{% endfor %}", "1:b 2:c"},
        {"{% for m in messages[::-1] %}{{ m.content }}{% endfor %}", "2:c 1:b 0:\xc3\xa4"},
        {"{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "2:c 1:b 0:\xc3\xa4"},
        {"{% for m in messages | selectattr('role', 'eq', 'user') | list %}{{ m.role }}{% endfor "
         "%}",
         "1:user"},
        {"{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}",
         "0:\xc3\xa4 2:c"},
        {"{% for m in messages | sort(attribute='role') %}{{ m.content }}{% endfor %}",
         "2:c 0:\xc3\xa4 1:b"},
        {"{% set ns = namespace(m=[]) %}{% for m in messages %}{% set ns.m = ns.m + [m] %}{% "
         "endfor %}"
         "{% for m in ns.m[:2] %}{{ m.content }}{% endfor %}",
         "0:\xc3\xa4 1:b"},
        {"{% macro f(m) %}({{ m.content }}){% endmacro %}{% for m in messages %}{{ f(m) }}{% "
         "endfor %}",
         "0:(\xc3\xa4) 1:(b) 2:(c)"},
        {"{% for m in messages %}{% for c in [1, 2] %}{{ c }}{% endfor %}{% endfor %}",
         "0:12 1:12 2:12"},
        {"{% for m in messages[:1] %}a{% for k in messages[1:] %}{{ k.content }}{% endfor %}z{% "
         "endfor %}",
         "0:a 1:b 2:c 0:z"},
        {"{% for m in messages %}{% set t %}{{ m.content }}{% endset %}{{ t }}{% generation %}!"
         "{% endgeneration %}{% endfor %}",
         all},
        {"{{ messages[0].content }}{% for i in range(2) %}{{ messages[i].content }}{% endfor %}",
         ""},
        {"{% for role, group in messages | groupby('role') %}{% for m in group %}{{ m.content }}"
         "{% endfor %}{% endfor %}",
         "2:c 0:\xc3\xa4 1:b"},
        {"{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% "
         "break %}"
         "{% endfor %}x",
         "1:b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_items(cases[i].template, cases[i].expected);
}

/* --- refusals -----------------------------------------------------------------------------------
 */

static void check_refused(const char *template, const char *message)
{
    json_t *variables = json_pack("{s:[], s:{s:i}, s:s}", "messages", "d", "a", 1, "s", "text");
    qp_jinja_output_t output = {0};
    CHECK_FAILS(render(template, strlen(template), variables, &output), QP_INPUT, message);
    qp_jinja_output_fini(&output);
    json_decref(variables);
}

static void test_refusals(void)
{
    static const struct {
        const char *template, *message;
    } cases[] = {
        {"\n\n{% frobnicate %}", "template: line 3: unknown tag 'frobnicate'"},
        {"\n{% include 'x' %}", "line 2: the tag 'include' is not supported"},
        {"{% for x in s recursive %}{% endfor %}", "line 1: recursive loops are not supported"},
        {"{{ s | shout }}", "line 1: the filter 'shout' is not known"},
        {"\n{{ s | urlize }}", "line 2: the filter 'urlize' is not supported"},
        {"{{ s is loud }}", "line 1: the test 'loud' is not known"},
        {"{{ lipsum() }}", "line 1: the function 'lipsum' is not supported"},
        {"{% if false %}\n{{ fetch() }}{% endif %}", "line 2: the function 'fetch' is not known"},
        {"{{ s.shout() }}", "line 1: the method 'shout' is not known"},
        {"{{ s.casefold() }}", "line 1: the method 'casefold' of a str is not supported"},
        {"a\n{{ s | map('shout') | list }}", "line 2: the filter 'shout' is not known"},
        {"{{ [1].append(2) }}", "'append' is undefined: not safe"},
        {"{{ d.update({}) }}", "'update' is undefined: not safe"},
        {"{{ s.__class__.mro }}", "'__class__' is undefined: not safe"},
        {"\n\n{{ raise_exception('no\nrole') }}", "template: line 3: no\nrole"},
        {"{{ nothing.at.all }}", "line 1: 'nothing' is undefined"},
        {"{{ 1 + s }}", "line 1: + of a int and a str"},
        {"{{ nothing + 1 }}", "'nothing' is undefined"},
        {"{{ d < 1 }}", "dict and int have no order"},
        {"{{ 9223372036854775807 + 1 }}", "+ goes beyond 64-bit integers"},
        {"{{ 99999999999999999999 }}", "line 1: the number 99999999999999999999 is too large"},
        {"{{ 1 // 0 }}", "division by zero"},
        {"{{ 1e300 * 1e300 }}", "infinite or not a number, which is not supported"},
        {"{{ '\xc3\x9f' | upper }}", "upper case of U+00DF is not supported"},
        {"{{ s | safe | upper }}", "upper of a string marked safe is not supported"},
        {"{{ s[::0] }}", "the step of a slice is zero"},
        {"{% set s.x = 1 %}", "'s' is no namespace"},
        {"{% set n = namespace(_x=1) %}", "begins with _"},
        {"{{ strftime_now('%Q') }}", "strftime_now: %Q is not supported"},
        {"{{ [s | map('trim')] }}", "writing a generator is not supported"},
        {"{% for loop in s %}{% endfor %}", "line 1: 'loop' cannot be set inside a loop"},
        {"{% break %}", "line 1: 'break' outside of a loop"},
        {"{% for x in s %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
         "'continue' outside of a loop"},
        {"{% if s %}\n\n", "line 1: the tag that begins here has no elif"},
        {"{{ 'a }}", "a string has no end"},
        {"{{ 'a\\", "a string has no end"},
        {"{# a", "a comment {# has no end"},
        {"{% raw %}", "{% raw %} has no end"},
        {"{{ s", "found the end of the template, expected }}"},
        {"{{ (1, 2] }}", "unexpected ']'"},
        {"{{ a b }}", "found 'b', expected }}"},
        {"{% set 1 = 2 %}", "only names can be assigned to"},
        {"{% macro m(a, a) %}{% endmacro %}", "two parameters are called 'a'"},
        {"{{ s.upper(1) }}", "upper: takes at most 0 arguments, 1 are given"},
        {"{{ s | replace('a') }}", "replace: needs 2 arguments"},
        {"{{ s | trim(x=1) }}", "trim: the argument 'x' is not known"},
        {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "the macro 'm' takes at most 1 arguments"},
        {"{% for a, b in [(1, 2, 3)] %}{% endfor %}", "too many values to unpack, expected 2"},
        {"{{ {[]: 1} }}", "a list is not hashable"},
        {"{{ '%d' % 'x' }}", "%d needs a number, not a str"},
        {"{{ '{} {}'.format(1) }}", "format: there is no argument ''"},
        {"{{ range(100001) }}", "range: more than 100000 elements"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(cases[i].template, cases[i].message);
}

/* --- bounds -------------------------------------------------------------------------------------
 */

static void check_repeated(const char *head, const char *part, int times, const char *tail,
                           const char *message)
{
    qp_str_t template = {0};
    qp_str_puts(&template, head);
    for (int i = 0; i < times; i++)
        qp_str_puts(&template, part);
    qp_str_puts(&template, tail);
    check_refused(template.data, message);
    qp_str_fini(&template);
}

static void test_bounds(void)
{
    check_refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
                  "the template takes more than 20000000 steps");
    check_refused("{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
                  "the template takes more");
    check_refused("{{ 'x' * 900000000 }}", "MiB of memory");
    check_refused("{{ [[]] * 9000000000000000000 }}", "too large a list");
    check_refused("{{ '%99999999d' % 1 }}", "beyond 100000 is not supported");
    check_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested more than 1000 deep");
    check_refused("{% set n = namespace() %}{% set n.n = n %}{{ n }}",
                  "nested more than 1000 deep");
    check_repeated("{{ ", "(", 150, "", "nested more than");
    check_repeated("{{ ", "[", 100000, "", "brackets inside one another");
    check_repeated("{{ ", "- ", 100000, "1 }}", "nested more than");
    check_repeated("{{ ", "not ", 100000, "1 }}", "nested more than");
    check_repeated("{{ 1", " + 1", 100000, " }}", "nested more than");
    check_repeated("{{ s", ".a", 100000, " }}", "nested more than");
    check_repeated("{{ s", " | trim", 100000, " }}", "nested more than");
    check_repeated("", "{% if s %}", 100000, "", "tags are nested more than 100 deep");
}

/* Work for a conversation of n turns, with all that templates do per turn. */
static int64_t work_of(const char *template, int n)
{
    json_t *messages = json_array(), *variables = json_pack("{s:o}", "messages", messages);
    qp_jinja_output_t output = {0};
    for (int i = 0; i < n; i++)
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", i % 2 == 0 ? "user" : "assistant",
                                        "content", "Some words of a conversation, \xc3\xbc. "));
    CHECK_OK(render(template, strlen(template), variables, &output));
    const int64_t n_step = output.n_step;
    qp_jinja_output_fini(&output);
    json_decref(variables);
    return n_step;
}

static void test_linear_work(void)
{
    static const char *const templates[] = {
        "{% for m in messages %}{{ m.role + ': ' + m.content | trim + '\n' }}{% endfor %}",
        "{% set ns = namespace(all='', list=[]) %}{% for m in messages %}{% set ns.all = ns.all + "
        "m.content %}{% set ns.list = ns.list + [m] %}{% endfor %}{{ ns.all }}{{ ns.list | length "
        "}}",
        "{% set rest = messages[1:] %}{% for m in rest if m.role == 'user' %}{{ loop.length }}"
        "{{ messages[loop.index0].role }}{% if not loop.last %}{{ loop.nextitem.role }}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% macro f(m) %}{% set t %}{{ m.content }}{% endset %}{{ t | trim }}{% endmacro %}"
        "{% for m in messages[::-1] %}{{ f(m) }}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        const int64_t few = work_of(templates[i], 200), many = work_of(templates[i], 2000);
        CHECK_MSG(many < 11 * few, "template %zu: %lld steps for 200 turns, %lld for 2000", i,
                  (long long)few, (long long)many);
        CHECK_MSG(many < 400000, "template %zu: %lld steps", i, (long long)many);
    }
}

int main(void)
{
    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
    setenv("TZ", "UTC", 1);
    json_t *golden = load(qp_test_source("tests/golden/jinja.json"));
    CHECK(golden != NULL);
    test_own_templates(golden);
    test_random_templates(golden);
    test_order_and_keys();
    test_items();
    test_refusals();
    test_bounds();
    test_linear_work();
    json_decref(golden);
    return qp_test_end();
}
