/* Patterns as Python's re.fullmatch reads them; what PCRE2 reads differently is refused. */
#include <string.h>

#include "formats/pattern.h"
#include "testing.h"

static const char key[] = "model.layers.12.self_attn.q_proj";

/* re.fullmatch(pattern, key) is not None, as Python 3.11 answers. */
static void test_matches(void)
{
    static const struct {
        const char *pattern;
        bool matches;
    } cases[] = {
        {".*q_proj", true},
        {"q_proj", false},
        {".*\\.q_proj", true},
        {"model\\.layers\\.(1|12)\\.self_attn\\.[qkv]_proj", true},
        {"model\\.layers\\.(1|2)\\.self_attn\\.[qkv]_proj", false},
        {"(?:model|x)[.]layers[.]\\d{1,2}[.].*", true},
        {"model.layers.\\d.*(?<!k_proj)", true},
        {"(?!.*q_proj).*", false},
        {"(?=model).*(?<=_proj)", true},
        {"(?P<layer>.*)\\.q_proj", true},
        {".*[]q]_proj", true},
        {".*[^]k]_proj", true},
        {".*[^]q]_proj", false},
        {".*\\bq_proj\\b", true},
        {"^.*q_proj$", true},
        {"", false},
        {"model.*?q_proj|", true},
        {"[a-z_]+(\\.\\w+)+", true},
        {"\\S+\\W\\D+", true},
        {"MODEL.*", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qp_pattern_t *pattern = NULL;
        bool matches = false;
        if (CHECK_OK(qp_pattern_create(cases[i].pattern, &pattern)))
            CHECK_OK(qp_pattern_fullmatch(pattern, key, &matches));
        CHECK_MSG(matches == cases[i].matches, "%s", cases[i].pattern);
        qp_pattern_destroy(&pattern);
    }
}

static void test_refusals(void)
{
    static const struct {
        const char *pattern, *message;
    } bad[] = {
        {"(", "pattern \"(\": missing closing parenthesis"},
        {"*", "at character 0"},
        {"[a", "missing terminating ]"},
        {"a\\", "\\ at end of pattern"},
        {"(?i)q", "\"(?i)\" is not supported"},
        {"(?>q)", "\"(?>q\" is not supported"},
        {"(*FAIL)", "is not supported"},
        {"\\pL", "is not supported"},
        {"\\Qq\\E", "is not supported"},
        {"\\Aq\\Z", "is not supported"},
        {"(q)\\1", "is not supported"},
        {"[[:alpha:]]", "\"[:al\" is not supported"},
        {"q{,2}", "\"{,2}\" is not supported"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qp_pattern_t *pattern = NULL;
        CHECK_FAILS(qp_pattern_create(bad[i].pattern, &pattern), QP_INPUT, bad[i].message);
        CHECK(pattern == NULL);
    }
}

/* Python would search for hours. */
static void test_endless_search(void)
{
    qp_pattern_t *pattern = NULL;
    bool matches;
    if (CHECK_OK(qp_pattern_create("((a|b|[.]|\\w)*)*((\\w|[.])*)*[0-9][A-Z]", &pattern)))
        CHECK_FAILS(qp_pattern_fullmatch(pattern, key, &matches), QP_INPUT, "match limit exceeded");
    qp_pattern_destroy(&pattern);
}

int main(void)
{
    test_matches();
    test_refusals();
    test_endless_search();
    return qp_test_end();
}
