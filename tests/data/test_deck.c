/* The data and batch groups of a deck fill their configs. */
#include <string.h>

#include "data/data.h"
#include "testing.h"

static const qp_deck_group_t *const groups[] = {&qp_data_deck, &qp_batch_deck};

static void test_defaults_and_values(void)
{
    qp_deck_t *deck = NULL;
    qp_data_config_t data;
    qp_batch_config_t batch;
    if (!CHECK_OK(qp_deck_parse("deck",
                                "data = { train = [ \"a-*.h5\", \"b.h5\" ]; packing = "
                                "\"contaminated\"; completion_only = true; };\n"
                                "batch = { global_sequences = 8; };",
                                groups, 2, NULL, 0, &deck)))
        return;
    qp_deck_fill(deck, &qp_data_deck, &data);
    qp_deck_fill(deck, &qp_batch_deck, &batch);
    CHECK(data.train.n == 2 && strcmp(data.train.item[1], "b.h5") == 0 && data.eval.n == 0);
    CHECK(data.seq_length == 1024 && data.packing == QP_PACK_CONTAMINATED);
    CHECK(data.completion_only && data.shuffle && data.eval_rows == 0);
    CHECK(data.overlong == QP_OVERLONG_AUTO);
    CHECK(batch.global_sequences == 8 && batch.micro_sequences == 4);
    qp_deck_destroy(&deck);
}

static void test_overlong(void)
{
    static const char *const text[] = {[QP_OVERLONG_AUTO] = "data = { overlong = \"auto\"; };",
                                       [QP_OVERLONG_CUT] = "data = { overlong = \"cut\"; };",
                                       [QP_OVERLONG_DROP] = "data = { overlong = \"drop\"; };"};
    for (int i = QP_OVERLONG_AUTO; i <= QP_OVERLONG_DROP; i++) {
        qp_deck_t *deck = NULL;
        qp_data_config_t data;
        if (!CHECK_OK(qp_deck_parse("deck", text[i], groups, 2, NULL, 0, &deck)))
            continue;
        qp_deck_fill(deck, &qp_data_deck, &data);
        CHECK(data.overlong == i);
        qp_deck_destroy(&deck);
    }
}

static void test_refusals(void)
{
    qp_deck_t *deck = NULL;
    const char *text = "data = { packing = \"mixed\"; seq_length = 1; overlong = \"keep\"; };";
    CHECK_FAILS(qp_deck_parse("deck", text, groups, 2, NULL, 0, &deck), QP_INPUT, "data.overlong");
    CHECK_FAILS(qp_deck_parse("deck", text, groups, 2, NULL, 0, &deck), QP_INPUT, "data.packing");
    CHECK_FAILS(qp_deck_parse("deck", text, groups, 2, NULL, 0, &deck), QP_INPUT,
                "data.seq_length");
}

int main(void)
{
    test_defaults_and_values();
    test_overlong();
    test_refusals();
    return qp_test_end();
}
