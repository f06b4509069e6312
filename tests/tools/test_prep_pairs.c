/* Pairs that quipu-prep makes where nothing rates the answers: a question's own answer against that
 * of another question, the same on any number of ranks. */
#include "prepared.h"

enum { N_QUESTION = 20 };

/* Question i of a made-up FAQ; 7 asks what 3 asks, with another answer, and 12 has the answer of 5.
 */
static int asked(int i)
{
    return i == 7 ? 3 : i;
}

static int answered(int i)
{
    return i == 12 ? 5 : i;
}

static void run_on_faqs(void)
{
    qp_str_t half[2] = {{0}};
    for (int i = 0; i < N_QUESTION; i++)
        qp_str_printf(&half[i >= 9], "<h2>What is q%d?</h2><p>It is a%d.</p>", asked(i),
                      answered(i));
    qp_str_puts(&half[1], "<h2>Unanswered?</h2>");
    write_file("faq1.html", half[0].data);
    write_file("faq2.html", half[1].data);
    qp_str_fini(&half[0]);
    qp_str_fini(&half[1]);
    for (int i = 0; i < 3; i++) {
        char *arguments = qp_format("html faq1.html faq2.html --tokenizer hf --out faq%d "
                                    "--eval-fraction 0.3 --kinds reward",
                                    i + 1);
        CHECK(run(on_ranks[i], arguments) == 0);
        CHECK(n_logged("] 20 pairs of answers\n") == 1);
        CHECK(
            n_logged(
                "] 1 skipped: rows or documents without text (first: faq2.html: document 21)\n") ==
            1);
        qp_free(arguments);
    }
    CHECK(run("", "html faq1.html faq2.html --tokenizer hf --out seeded --eval-fraction 0 "
                  "--kinds reward --seed 9") == 0);
    CHECK(run("", "html faq1.html --tokenizer hf --out unwanted --eval-fraction 0 "
                  "--kinds sft,prompt") == 0);
    CHECK(n_logged("pairs of answers\n") == 0 && n_logged("reward") == 0);
    /* The second question has the first one's answer, the third asks what the first asks. */
    write_file("few.html", "<h2>A?</h2>yes<h2>B?</h2>yes<h2>A?</h2>good");
    CHECK(run("", "html few.html --tokenizer hf --out few --eval-fraction 0") == 0);
    CHECK(n_logged("] 2 pairs of answers\n") == 1);
    CHECK(n_logged("] 1 questions without a pair") == 1);
}

/* Each question once with its own answer, against an answer that is not its own. */
static void check_faq_pairs(const samples_t *pairs, bool twice_asked)
{
    int n_of[N_QUESTION] = {0}, n_other[N_QUESTION] = {0}, n_distinct = 0;
    CHECK(pairs->n == N_QUESTION);
    for (int64_t i = 0; i < pairs->n; i++) {
        int question[2] = {-1, -1}, answer[2] = {-1, -1}, end = 0;
        int n = sscanf(pairs->text[i],
                       "Question: What is q%d?\n\nAnswer:[ It is a%d." END
                       "Question: What is q%d?\n\nAnswer:[ It is a%d." END "+1%n",
                       &question[0], &answer[0], &question[1], &answer[1], &end);
        if (!CHECK_MSG(n == 4 && end > 0 && pairs->text[i][end] == '\0', "not a pair:\n%s",
                       pairs->text[i]))
            continue;
        int own = question[0];
        CHECK(question[1] == own && answer[1] != answer[0]);
        if (twice_asked) {
            CHECK(answer[0] == answered(own) || (own == 3 && answer[0] == 7));
            CHECK(answer[1] != answered(own) && !(own == 3 && answer[1] == 7));
        } else {
            CHECK(answer[0] == own && answer[1] != own);
        }
        n_of[own]++;
        n_other[answer[1]]++;
    }
    for (int i = 0; i < N_QUESTION; i++) {
        CHECK(n_of[i] == (!twice_asked ? 1 : i == 3 ? 2 : i == 7 ? 0 : 1));
        n_distinct += n_other[i] > 0;
    }
    CHECK_MSG(n_distinct > N_QUESTION / 3, "only %d different answers", n_distinct);
}

static samples_t both_splits(qp_comm_t *comm, const qp_tokenizer_t *t, const char *prefix,
                             const char *shards)
{
    char *pattern = qp_format("%s-reward-*%s.h5", prefix, shards);
    samples_t samples = read_samples(comm, t, "reward", pattern);
    qp_free(pattern);
    return samples;
}

static bool same_samples(const samples_t *a, const samples_t *b)
{
    bool same = a->n == b->n;
    for (int64_t i = 0; same && i < a->n; i++)
        same = strcmp(a->text[i], b->text[i]) == 0;
    return same;
}

static void check_faqs(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    samples_t alone = both_splits(comm, t, "faq1", shards_of_ranks[0]);
    check_faq_pairs(&alone, true);
    for (int i = 1; i < 3; i++) {
        char *prefix = qp_format("faq%d", i + 1);
        samples_t ranks = both_splits(comm, t, prefix, shards_of_ranks[i]);
        CHECK(same_samples(&alone, &ranks));
        free_samples(&ranks);
        qp_free(prefix);
    }
    samples_t seeded = both_splits(comm, t, "seeded", "");
    check_faq_pairs(&seeded, true);
    CHECK(!same_samples(&alone, &seeded));
    free_samples(&seeded);
    free_samples(&alone);
    EXPECT(comm, t, "reward", "few-reward-train.h5",
           "Question: A?\n\nAnswer:[ good" END "Question: A?\n\nAnswer:[ yes" END "+1",
           "Question: B?\n\nAnswer:[ yes" END "Question: B?\n\nAnswer:[ good" END "+1");
}

/* A dump where nobody votes: the first answer is the best, and a question may have none. */
static void run_on_unrated(void)
{
    qp_str_t xml = {0};
    qp_str_puts(&xml, "<posts>");
    for (int q = 0; q < N_QUESTION; q++)
        qp_str_printf(&xml,
                      "<row Id='%d' PostTypeId='2' ParentId='%d' Body='It is worse.'/>"
                      "<row Id='%d' PostTypeId='1' Body='What is q%d?'/>"
                      "<row Id='%d' PostTypeId='2' ParentId='%d' Body='It is a%d.'/>"
                      "<row Id='%d' PostTypeId='2' ParentId='%d' Body=''/>",
                      4 * q + 4, 4 * q + 1, 4 * q + 1, q, 4 * q + 3, 4 * q + 1, q, 4 * q + 2,
                      4 * q + 1);
    qp_str_puts(&xml, "<row Id='1001' PostTypeId='1' Body='Why?'/>"
                      "<row Id='1002' PostTypeId='1' Body=''/>"
                      "<row Id='1003' PostTypeId='2' ParentId='1002' Body='of nothing'/>"
                      "<row Id='1004' PostTypeId='2' ParentId='999' Body='orphan'/></posts>");
    write_file("unrated.xml", xml.data);
    qp_str_fini(&xml);
    for (int i = 0; i < 3; i++) {
        char *arguments = qp_format("stackexchange unrated.xml --tokenizer hf --out unrated%d "
                                    "--eval-fraction 0.3 --pairs mismatched",
                                    i + 1);
        CHECK(run(on_ranks[i], arguments) == 0);
        CHECK(n_logged("] 20 pairs of answers\n") == 1);
        CHECK(n_logged("] 84 posts read\n") == 1);
        CHECK(n_logged("] 22 questions\n") == 1);
        CHECK(n_logged("] 20 skipped: answers without text (first: unrated.xml: post 2)\n") == 1);
        CHECK(
            n_logged(
                "] 1 skipped: answers without their question (first: unrated.xml: post 1004)\n") ==
            1);
        qp_free(arguments);
    }
    CHECK(run("", "stackexchange unrated.xml --tokenizer hf --out rated --eval-fraction 0 "
                  "--kinds reward,prompt 2>/dev/null") != 0);
    CHECK(n_logged("posts with an attribute missing or wrong (first: unrated.xml:1: no Score)") ==
          1);
    CHECK(run("", "stackexchange unrated.xml --tokenizer hf --out asked --eval-fraction 0 "
                  "--kinds prompt") == 0);
    /* Where all best answers are the same text, nothing can be set against them. */
    write_file("alike.xml", "<posts><row Id='1' PostTypeId='1' Body='q1'/>"
                            "<row Id='2' PostTypeId='2' ParentId='1' Body='a'/>"
                            "<row Id='3' PostTypeId='1' Body='q2'/>"
                            "<row Id='4' PostTypeId='2' ParentId='3' Body='b'/>"
                            "<row Id='5' PostTypeId='2' ParentId='3' Score='3' Body='a'/>"
                            "<row Id='6' PostTypeId='1' Body=''/>"
                            "<row Id='7' PostTypeId='2' ParentId='6' Body='c'/></posts>");
    CHECK(run("", "stackexchange alike.xml --tokenizer hf --out alike --eval-fraction 0 "
                  "--pairs mismatched --answers best") == 0);
    CHECK(n_logged("pairs of answers\n") == 0);
    CHECK(n_logged("] 2 questions without a pair") == 1);
}

static void check_unrated(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    samples_t alone = both_splits(comm, t, "unrated1", shards_of_ranks[0]);
    check_faq_pairs(&alone, false);
    for (int i = 1; i < 3; i++) {
        char *prefix = qp_format("unrated%d", i + 1);
        samples_t ranks = both_splits(comm, t, prefix, shards_of_ranks[i]);
        CHECK(same_samples(&alone, &ranks));
        free_samples(&ranks);
        qp_free(prefix);
    }
    free_samples(&alone);
    EXPECT(comm, t, "sft", "alike-sft-train.h5", "Question: q1\n\nAnswer:[ a" END,
           "Question: q2\n\nAnswer:[ a" END);
    samples_t sft = read_samples(comm, t, "sft", "unrated1-sft-*.h5");
    CHECK(sft.n == N_QUESTION);
    for (int64_t i = 0; i < sft.n; i++)
        CHECK(strstr(sft.text[i], "worse") == NULL);
    free_samples(&sft);
    samples_t prompts = read_samples(comm, t, "prompt", "unrated3-prompt-*-of-00003.h5");
    CHECK(prompts.n == N_QUESTION + 1);
    free_samples(&prompts);
}

int main(void)
{
    qp_tokenizer_t *tokenizer = make_tokenizer();
    run_on_faqs();
    run_on_unrated();
    qp_comm_t *comm = NULL;
    if (!CHECK_OK(qp_comm_create(&comm)))
        return 1;
    check_faqs(comm, tokenizer);
    check_unrated(comm, tokenizer);
    qp_comm_destroy(&comm);
    qp_tokenizer_destroy(&tokenizer);
    return qp_test_end();
}
