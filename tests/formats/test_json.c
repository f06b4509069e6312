/* JSON as Python's json.load reads it (its words: CPython's json/decoder.py), and values whose
 * types are checked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/json.h"
#include "testing.h"

/* The text parsed, or NULL with a failed check. */
static json_t *parse(const char *text, unsigned flags)
{
    json_t *root = NULL;
    CHECK_OK(qp_json_parse("x.json", text, strlen(text), flags, &root));
    return root;
}

static void test_numbers_of_python(void)
{
    json_t *root = parse("{\"big\": 1000000000000000019884624838656, \"low\": -1e400, \"nan\": NaN,"
                         "\"max\": 9223372036854775807, \"over\": 9223372036854775808,"
                         "\"inf\": [Infinity, -Infinity, 1e999], \"x\": \"NaN 1e999\"}",
                         0);
    int64_t i = 0;
    double x = 0.0;
    json_t *value = NULL;
    const char *text = NULL;
    CHECK(json_is_real(json_object_get(root, "big")));
    CHECK_OK(qp_json_number(root, "big", 0.0, &x));
    CHECK(x > 0.99e30 && x < 1.01e30);
    CHECK_OK(qp_json_int(root, "max", 0, 0, INT64_MAX, &i));
    CHECK(i == INT64_MAX && json_is_real(json_object_get(root, "over")));
    CHECK_FAILS(qp_json_int(root, "over", 0, 0, INT64_MAX, &i), QP_INPUT,
                "over is 9.2233720368547");
    CHECK_FAILS(qp_json_number(root, "nan", 0.0, &x), QP_INPUT, "nan is NaN, expected a number");
    CHECK_FAILS(qp_json_number(root, "low", 0.0, &x), QP_INPUT, "low is -1e400, expected");
    CHECK_FAILS(qp_json_want(root, "inf", JSON_OBJECT, &value), QP_INPUT,
                "inf is [Infinity,-Infinity,1e999], expected an object");
    CHECK_FAILS(qp_json_string(root, "nan", "", &text), QP_INPUT, "nan is NaN, expected a string");
    CHECK(json_array_size(json_object_get(root, "inf")) == 3);
    CHECK(strcmp(json_string_value(json_object_get(root, "x")), "NaN 1e999") == 0);
    json_decref(root);
}

static void test_texts_of_python(void)
{
    const char *text = NULL;
    json_t *root =
        parse("{\"a\": 1, \"a\": 2, \"lone\": \"x\\ud800y\\udc00\", \"nul\": \"\\u0000\","
              "\"pair\": \"\\ud83d\\ude00\", \"quote\": \"\\\\\\\"\\u00e9\"}",
              0);
    CHECK(json_integer_value(json_object_get(root, "a")) == 2);
    CHECK_OK(qp_json_string(root, "lone", NULL, &text));
    CHECK(strcmp(text, "x\xef\xbf\xbdy\xef\xbf\xbd") == 0);
    CHECK_OK(qp_json_string(root, "pair", NULL, &text));
    CHECK(strcmp(text, "\xf0\x9f\x98\x80") == 0);
    CHECK_OK(qp_json_string(root, "quote", NULL, &text));
    CHECK(strcmp(text, "\\\"\xc3\xa9") == 0);
    CHECK_FAILS(qp_json_string(root, "nul", NULL, &text), QP_INPUT, "nul is ");
    json_decref(root);
    const char lone[] = "{\"t\": \"\\udfff\"}", pair[] = "{\"t\": \"\\ud83d\\ude00\"}";
    CHECK_FAILS(qp_json_parse("r", lone, strlen(lone), QP_JSON_REFUSE_SURROGATES, &root), QP_INPUT,
                "r: holds half of a surrogate pair");
    CHECK(root == NULL);
    root = parse(pair, QP_JSON_REFUSE_SURROGATES);
    json_decref(root);
    root = parse("{\"a\": NaN, \"b\": [-Infinity, 1e999], \"c\": \"NaN\"}", QP_JSON_NAN_IS_NULL);
    CHECK(json_is_null(json_object_get(root, "a")) && json_is_string(json_object_get(root, "c")));
    CHECK(json_is_null(json_array_get(json_object_get(root, "b"), 1)));
    json_decref(root);
}

/* A value on one line; what a user wrote as a text stays one. */
static void test_lines(void)
{
    static const struct {
        const char *text, *line;
    } rows[] = {
        {"[ 1.1, NaN ]", "[1.1,NaN]"},
        {"-Infinity", "-Infinity"},
        {"{\"a\": \"NaN\", \"b\": 1e999}", "{\"a\":\"NaN\",\"b\":1e999}"},
        {"\"\\\"\\u0000NaN\"", "\"\\\"\\u0000NaN\""},
        {"[\"\\u0000x\", NaN]", "[\"\\u0000x\",NaN]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *root = parse(rows[i].text, 0);
        char *line = qp_json_line(root);
        CHECK_MSG(strcmp(line, rows[i].line) == 0, "%s: %s", rows[i].text, line);
        qp_free(line);
        json_decref(root);
    }
}

/* Text as it stands: numbers keep every digit, and members their own writing. */
static void test_compact(void)
{
    static const char text[] =
        "{ \"a\" : 123456789012345678901234567890 ,\n\"b, \\\"c\": [1.10,\t1e400,"
        " NaN], \"d\": {\"e\": -0}, \"\\u00e9\": \"x  y\" }";
    static const char *const pieces[] = {"\"a\":123456789012345678901234567890",
                                         "\"b, \\\"c\":[1.10,1e400,null]", "\"d\":{\"e\":-0}",
                                         "\"\\u00e9\":\"x  y\""};
    qp_str_t line = {0};
    const char *piece;
    size_t n_piece, at = 0, i = 0;
    qp_json_compact(text, strlen(text), &line);
    CHECK(line.data[0] == '{' && line.data[line.n - 1] == '}');
    for (; qp_json_next_piece(line.data + 1, line.n - 2, &at, &piece, &n_piece); i++)
        CHECK_MSG(i < 4 && n_piece == strlen(pieces[i]) && memcmp(piece, pieces[i], n_piece) == 0,
                  "%zu: %.*s", i, (int)n_piece, piece);
    CHECK(i == 4);
    qp_str_fini(&line);
}

static void test_damage(void)
{
    static const char *const wrong[] = {"",        "{",         "{\"a\": 01}", "{\"a\": \"\\x\"}",
                                        "[1,]",    "nan",       "Infinit",     "{\"a\": \"\xff\"}",
                                        "{} x",    "\"\\u12\"", "\"\\",        "\"\\ud800\\u12",
                                        "[1e, 2]", "--1",       "{\"a\": -}",  "[NaNN]"};
    json_t *root = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_FAILS(qp_json_parse("w.json", wrong[i], strlen(wrong[i]), 0, &root), QP_INPUT,
                    "w.json:1: ");
        CHECK_MSG(root == NULL, "%s", wrong[i]);
    }
    CHECK_FAILS(qp_json_parse(NULL, "{\"a\" 1}", 7, 0, &root), QP_INPUT, "':' expected near '1'");
    CHECK_FAILS(qp_json_parse_object("w.json", "[]", 2, 0, &root), QP_INPUT, "is no JSON object");
}

/* Lists, objects and both in turn, at the limit and one beyond; brackets in strings do not nest. */
static void test_depth(void)
{
    static const char *const pairs[][2] = {{"[", "]"}, {"{\"a\":", "}"}, {"[{\"a\":[", "]}]"}};
    static const int levels[] = {1, 1, 3};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        for (int beyond = 0; beyond < 2; beyond++) {
            const int n = QP_JSON_MAX_DEPTH / levels[i] + beyond;
            qp_str_t text = {0};
            json_t *root = NULL;
            for (int k = 0; k < n; k++)
                qp_str_puts(&text, pairs[i][0]);
            qp_str_puts(&text, "\"[[{{\\\"[\"");
            for (int k = 0; k < n; k++)
                qp_str_puts(&text, pairs[i][1]);
            const qp_json_nesting_t nesting = qp_json_nesting(text.data, text.n);
            CHECK(nesting.deepest == (int64_t)n * levels[i] && nesting.depth == 0 &&
                  nesting.lowest == 0);
            if (beyond)
                CHECK_FAILS(qp_json_parse("d.json", text.data, text.n, 0, &root), QP_INPUT,
                            "d.json: nested deeper than 2047 lists and objects");
            else
                CHECK_OK(qp_json_parse("d.json", text.data, text.n, 0, &root));
            json_decref(root);
            qp_str_fini(&text);
        }
    }
}

static void test_types(void)
{
    json_t *root =
        parse("{\"flag\": \"true\", \"n\": \"16\", \"x\": true, \"text\": 5, \"null\": null,"
              "\"half\": 1.5, \"three\": 3}",
              0);
    bool flag = false;
    int64_t n = 0;
    double x = 0.0;
    const char *text = NULL;
    json_t *value = NULL;
    CHECK_FAILS(qp_json_bool(root, "flag", false, &flag), QP_INPUT,
                "flag is \"true\", expected true or false");
    CHECK_FAILS(qp_json_int(root, "n", 8, 1, 100, &n), QP_INPUT,
                "n is \"16\", expected an integer from 1 to 100");
    CHECK_FAILS(qp_json_int(root, "half", 8, 1, 100, &n), QP_INPUT, "half is 1.5");
    CHECK_FAILS(qp_json_int(root, "three", 8, 4, 100, &n), QP_INPUT, "three is 3, expected");
    CHECK_FAILS(qp_json_number(root, "x", 1.0, &x), QP_INPUT, "x is true, expected a number");
    CHECK_FAILS(qp_json_string(root, "text", "", &text), QP_INPUT, "text is 5, expected a string");
    CHECK_OK(qp_json_int(root, "null", 8, 1, 100, &n));
    CHECK_OK(qp_json_bool(root, "absent", true, &flag));
    CHECK_OK(qp_json_number(root, "three", 0.0, &x));
    CHECK(n == 8 && flag && x == 3.0);
    CHECK_FAILS(qp_json_want(root, "absent", JSON_OBJECT, &value), QP_INPUT, "absent is missing");
    CHECK_FAILS(qp_json_want(root, "n", JSON_ARRAY, &value), QP_INPUT,
                "n is \"16\", expected an array");
    CHECK_OK(qp_json_want(root, "x", JSON_TRUE, &value));
    json_decref(root);
}

/* What is no number of JSON is null. */
static void test_written_numbers(void)
{
    static const double x[] = {1.5, -0.25, NAN, INFINITY, -INFINITY};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        json_array_append_new(list, qp_json_real(x[i]));
    char *text = json_dumps(list, JSON_COMPACT);
    CHECK_MSG(strcmp(text, "[1.5,-0.25,null,null,null]") == 0, "%s", text);
    free(text);
    json_decref(list);
}

int main(void)
{
    test_written_numbers();
    test_numbers_of_python();
    test_texts_of_python();
    test_lines();
    test_compact();
    test_damage();
    test_depth();
    test_types();
    return qp_test_end();
}
