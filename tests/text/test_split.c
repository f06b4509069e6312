/* Pre-tokenizers cut texts as HF tokenizers does (tests/golden/make_tokenizers.py), also where
 * PCRE2's classes differ from Oniguruma's; hostile patterns end with an error. */
#include <string.h>

#include "base/mem.h"
#include "testing.h"
#include "text/tokenizer_parts.h"

/* Pieces found so far against those expected. */
typedef struct {
    const json_t *expected;
    size_t n;
    bool same;
} pieces_t;

static void compare_piece(void *owner, qp_slice_t word)
{
    pieces_t *pieces = owner;
    const json_t *expected = json_array_get(pieces->expected, pieces->n++);
    pieces->same = pieces->same && expected != NULL && json_string_length(expected) == word.n &&
                   memcmp(json_string_value(expected), word.text, word.n) == 0;
}

static void check_case(const json_t *item)
{
    const json_t *step = json_object_get(item, "pre_tokenizer"),
                 *text = json_object_get(item, "text");
    pieces_t pieces = {.expected = json_object_get(item, "pieces"), .same = true};
    qp_tokenizer_t *tokenizer = QP_NEW("test", qp_tokenizer_t, 1);
    qp_split_scratch_t scratch = {0};
    char *name = json_dumps(step, JSON_COMPACT);
    if (CHECK_OK(qp_tokenizer_read_pre_tokenizer(tokenizer, step)))
        CHECK_OK(qp_split_run(
            &tokenizer->split,
            (qp_slice_t){.text = json_string_value(text), .n = json_string_length(text)}, true,
            &scratch, compare_piece, &pieces));
    CHECK_MSG(pieces.same && pieces.n == json_array_size(pieces.expected), "%s on '%s'", name,
              json_string_value(text));
    free(name);
    qp_split_scratch_fini(&scratch);
    qp_tokenizer_destroy(&tokenizer);
}

static void test_pieces_are_those_of_hf(void)
{
    json_error_t where;
    json_t *cases =
        json_load_file(qp_test_source("tests/golden/tokenizers/splits.json"), 0, &where);
    size_t i;
    json_t *item;
    CHECK(json_array_size(cases) == 81);
    json_array_foreach(cases, i, item) check_case(item);
    json_decref(cases);
}

static void ignore_piece(void *owner, qp_slice_t word)
{
    (void)owner;
    (void)word;
}

static void test_hostile_pattern_ends(void)
{
    static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!";
    qp_split_t split = {0};
    qp_split_scratch_t scratch = {0};
    qp_split_step_t step = {.kind = QP_SPLIT_REGEX};
    CHECK_FAILS(qp_regex_create("[a[b]]", false, &step.regex), QP_INPUT, "nested classes");
    CHECK_FAILS(qp_regex_create("[\\W]", false, &step.regex), QP_INPUT, "\\W inside []");
    CHECK_FAILS(qp_regex_create("a{2,1}", false, &step.regex), QP_INPUT, "split pattern 'a{2,1}'");
    if (CHECK_OK(qp_regex_create("(a|a)*$", false, &step.regex)) &&
        CHECK_OK(qp_split_add(&split, step)))
        CHECK_FAILS(qp_split_run(&split, (qp_slice_t){.text = text, .n = strlen(text)}, true,
                                 &scratch, ignore_piece, NULL),
                    QP_INPUT, "match limit exceeded");
    qp_split_scratch_fini(&scratch);
    qp_split_fini(&split);
}

int main(void)
{
    test_pieces_are_those_of_hf();
    test_hostile_pattern_ends();
    return qp_test_end();
}
