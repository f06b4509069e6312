/* What quipu-prep makes of dumps, JSONL, HTML and text, alone and under mpirun: every sample is
 * decoded again and compared. Programs run first, MPI starts in this process after them. */
#include "prepared.h"

/* --- the dump --------------------------------------------------------------------------------- */

/* An answer stands before its question; scores: 10 -> 3+1 (accepted), 20 -> 4, -2 -> -1, 3 -> 2. */
static const char dump[] =
    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<posts>\n"
    " <row Id=\"1\" PostTypeId=\"2\" ParentId=\"2\" Score=\"10\" Body=\"&lt;p&gt;yes &amp;amp; "
    "&lt;b&gt;no&lt;/b&gt;&lt;/p&gt;&#xA;\" />\n"
    " <row Id=\"2\" PostTypeId=\"1\" AcceptedAnswerId=\"1\" Score=\"5\" Title=\"Why?\" "
    "Body=\"&lt;p&gt;Q2&lt;/p&gt;\" />\n"
    " <row Id=\"3\" PostTypeId=\"2\" ParentId=\"2\" Score=\"-2\" Body=\"bad\" />\n"
    " <row Id=\"4\" PostTypeId=\"2\" ParentId=\"2\" Score=\"20\" Body=\"good\" />\n"
    " <row Id=\"5\" PostTypeId=\"1\" Score=\"1\" Title=\"Alone\" Body=\"Q5\" />\n"
    " <row Id=\"6\" PostTypeId=\"2\" ParentId=\"5\" Score=\"3\" Body=\"only\" />\n"
    " <row Id=\"7\" PostTypeId=\"4\" Body=\"a tag wiki\" />\n"
    " <row Id=\"8\" PostTypeId=\"2\" ParentId=\"99\" Score=\"3\" Body=\"orphan\" />\n"
    " <row Id=\"9\" PostTypeId=\"1\" Score=\"1\" Body=\"&lt;p&gt; &lt;/p&gt;\" />\n"
    " <row Id=\"10\" PostTypeId=\"2\" ParentId=\"5\" Score=\"3\" Body=\"\" />\n"
    "</posts>\n";

#define Q2 "Question: Q2\n\nAnswer:"
#define Q5 "Question: Q5\n\nAnswer:"

static void run_on_dump(void)
{
    write_file("Posts.xml", dump);
    CHECK(run("", "stackexchange Posts.xml --tokenizer hf --out d --eval-fraction 0") == 0);
    CHECK(run("", "stackexchange Posts.xml --tokenizer hf --out best --eval-fraction 0 "
                  "--answers best --kinds sft --with-title") == 0);
    CHECK(run("", "stackexchange Posts.xml --tokenizer hf --out all --eval-fraction 0 "
                  "--answers all --kinds sft") == 0);
    CHECK(run("", "stackexchange Posts.xml --tokenizer hf --out one --eval-fraction 0 "
                  "--max-pairs 1 --kinds reward") == 0);
    CHECK(run("", "stackexchange Posts.xml --tokenizer hf --out held --eval-fraction 1") == 0);
    char *zip = qp_format("gzip -k %s/Posts.xml", qp_test_folder());
    CHECK(system(zip) == 0);
    qp_free(zip);
    CHECK(run("mpirun --oversubscribe -n 3",
              "stackexchange Posts.xml.gz --tokenizer hf --out ranks --eval-fraction 0") == 0);
}

static void check_dump(qp_comm_t *comm, const qp_tokenizer_t *t, const char *sft,
                       const char *reward, const char *prompt)
{
    /* 1 and 4 score 4 each and win against 3; question 5 has one answer: no pair. */
    EXPECT(comm, t, "sft", sft, Q2 "[ good" END, Q2 "[ yes & **no**" END);
    EXPECT(comm, t, "reward", reward, Q2 "[ good" END Q2 "[ bad" END "+5",
           Q2 "[ yes & **no**" END Q2 "[ bad" END "+5");
    EXPECT(comm, t, "prompt", prompt, Q2 " ", Q5 " ");
}

static void check_dumps(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    check_dump(comm, t, "d-sft-train.h5", "d-reward-train.h5", "d-prompt-train.h5");
    check_dump(comm, t, "held-sft-eval.h5", "held-reward-eval.h5", "held-prompt-eval.h5");
    check_dump(comm, t, "ranks-sft-train-*-of-00003.h5", "ranks-reward-train-*-of-00003.h5",
               "ranks-prompt-train-*-of-00003.h5");
    EXPECT(comm, t, "sft", "best-sft-train.h5", "Question: Alone\n\nQ5\n\nAnswer:[ only" END,
           "Question: Why?\n\nQ2\n\nAnswer:[ yes & **no**" END);
    EXPECT(comm, t, "sft", "all-sft-train.h5", Q2 "[ good" END, Q2 "[ yes & **no**" END,
           Q5 "[ only" END);
    samples_t one = read_samples(comm, t, "reward", "one-reward-train.h5");
    CHECK(one.n == 1);
    free_samples(&one);
}

/* --- rows and documents ----------------------------------------------------------------------- */

static void run_on_rows(void)
{
    write_file("rows.jsonl",
               "{\"text\": \"plain\"}\n"
               "{\"prompt\": \"2+2=\", \"completion\": \" 4\", \"other\": 1}\n"
               "\n"
               "{\"prompt\": \"p\", \"chosen\": \" c\", \"rejected\": \" r\"}\n"
               "{\"prompt\": \"alone\"}\n"
               "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, "
               "{\"role\": \"assistant\", \"content\": \"yes\"}]}\n"
               "{\"text\": \"  \"}\n"
               "{\"text\": \"a rather long row that has more than twenty tokens in it, as it goes "
               "on and on and on and on\"}\n");
    CHECK(run("", "jsonl rows.jsonl --tokenizer hf --out j --eval-fraction 0 --max-tokens 20") ==
          0);
    write_file("faq.html", "<h1>The FAQ</h1><p>intro</p><h2>1.1. What is it?</h2><p>A <b>thing</b>."
                           "</p><pre># not a heading?</pre><h2>Not a question</h2><p>x</p>"
                           "<h2>And?</h2><p>Yes.</p><hr><p>footer</p>");
    CHECK(run("", "html faq.html --tokenizer hf --out h --eval-fraction 0") == 0);
    write_file("a.txt", "one\ntwo\n\n\n  \nthree\n");
    write_file("b.txt", "four <|im_end|>");
    CHECK(run("", "text a.txt b.txt --tokenizer hf --out t --eval-fraction 0") == 0);
}

static void check_rows(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    EXPECT(comm, t, "sft", "j-sft-train.h5", "2+2=[ 4" END,
           "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yes" END "\n", "[plain" END);
    EXPECT(comm, t, "reward", "j-reward-train.h5", "p[ c" END "p[ r" END "+1");
    EXPECT(comm, t, "prompt", "j-prompt-train.h5", "alone");
    EXPECT(comm, t, "sft", "h-sft-train.h5", "Question: And?\n\nAnswer:[ Yes." END,
           "Question: What is it?\n\nAnswer:[ A **thing**.\n\n```\n# not a heading?\n```" END);
    /* With two questions, each has the other's answer set against its own. */
    EXPECT(comm, t, "reward", "h-reward-train.h5",
           "Question: And?\n\nAnswer:[ Yes." END
           "Question: And?\n\nAnswer:[ A **thing**.\n\n```\n# not a heading?\n```" END "+1",
           "Question: What is it?\n\nAnswer:[ A **thing**.\n\n```\n# not a heading?\n```" END
           "Question: What is it?\n\nAnswer:[ Yes." END "+1");
    /* What looks like a special token in a text file is text: EOS comes behind it. */
    EXPECT(comm, t, "sft", "t-sft-train.h5", "[four <|im_end|>" END, "[one\ntwo" END, "[three" END);
}

/* --- nothing where something is needed ---------------------------------------------------------
 */

/* A tokenizer with BOS whose normalizer takes every '#' away. */
static void make_hashless(void)
{
    char *command = qp_format(
        "mkdir -p %s/hashless && sed "
        "'s/\"normalizer\":null/\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":"
        "\"#\"},\"content\":\"\"}/' %s >%s/hashless/tokenizer.json",
        qp_test_folder(), qp_test_source("tests/golden/tokenizers/llama3.json"), qp_test_folder());
    CHECK(system(command) == 0);
    qp_free(command);
    write_file("hashless/tokenizer_config.json",
               "{\"bos_token\": \"<|begin_of_text|>\", \"eos_token\": \"<|end_of_text|>\"}");
}

static void run_on_empty_rows(void)
{
    write_file("empty.jsonl", "{\"prompt\": \"\"}\n"
                              "{\"prompt\": \"asked\"}\n"
                              "{\"prompt\": \" \\n\\t\"}\n"
                              "{\"prompt\": \"\", \"completion\": \"alone\"}\n"
                              "{\"prompt\": \"p\", \"completion\": \"\"}\n"
                              "{\"prompt\": \"\", \"chosen\": \"c\", \"rejected\": \"r\"}\n"
                              "{\"prompt\": \"p\", \"chosen\": \"\", \"rejected\": \"r\"}\n"
                              "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"\"}\n"
                              "{\"prompt\": \"\", \"chosen\": \"c\", \"rejected\": \" \"}\n"
                              "{\"text\": \"\"}\n"
                              "{\"messages\": []}\n");
    for (int i = 0; i < 3; i++) {
        char *arguments =
            qp_format("jsonl empty.jsonl --tokenizer hf --out empty%d --eval-fraction 0", i + 1);
        CHECK(run(on_ranks[i], arguments) == 0);
        CHECK(n_logged("] 7 skipped: rows or documents without text (first: ") == 1);
        CHECK(n_logged("] 11 rows\n") == 1);
        qp_free(arguments);
    }
    make_hashless();
    write_file("hashes.jsonl", "{\"prompt\": \"##\"}\n{\"prompt\": \"#a\"}\n{\"text\": \"#\"}\n"
                               "{\"text\": \"b#\"}\n");
    CHECK(run("", "jsonl hashes.jsonl --tokenizer hashless --out hashes --eval-fraction 0") == 0);
    CHECK(n_logged("] 2 skipped: rows or documents without text (first: ") == 1);
}

static void check_empty_rows(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    for (int i = 0; i < 3; i++) {
        const char *shards = shards_of_ranks[i];
        char *prompt = qp_format("empty%d-prompt-train%s.h5", i + 1, shards);
        char *sft = qp_format("empty%d-sft-train%s.h5", i + 1, shards);
        char *reward = qp_format("empty%d-reward-train%s.h5", i + 1, shards);
        EXPECT(comm, t, "prompt", prompt, "asked");
        EXPECT(comm, t, "sft", sft, "[alone" END);
        EXPECT(comm, t, "reward", reward, "[c" END "[r" END "+1", "p[c" END "p[" END "+1");
        qp_free(prompt);
        qp_free(sft);
        qp_free(reward);
    }
    qp_tokenizer_t *hashless = load_tokenizer("hashless");
    EXPECT(comm, hashless, "prompt", "hashes-prompt-train.h5", "<|begin_of_text|>a");
    EXPECT(comm, hashless, "sft", "hashes-sft-train.h5", "[<|begin_of_text|>b<|end_of_text|>]");
    qp_tokenizer_destroy(&hashless);
}

/* --- the split -------------------------------------------------------------------------------- */

static void run_on_many(void)
{
    qp_str_t xml = {0};
    qp_str_puts(&xml, "<posts>");
    for (int q = 0; q < 30; q++)
        qp_str_printf(&xml,
                      "<row Id='%d' PostTypeId='1' Body='question %d'/>"
                      "<row Id='%d' PostTypeId='2' ParentId='%d' Score='9' Body='a'/>"
                      "<row Id='%d' PostTypeId='2' ParentId='%d' Score='0' Body='b'/>",
                      3 * q + 1, q, 3 * q + 2, 3 * q + 1, 3 * q + 3, 3 * q + 1);
    qp_str_puts(&xml, "</posts>");
    write_file("many.xml", xml.data);
    qp_str_fini(&xml);
    CHECK(run("", "stackexchange many.xml --tokenizer hf --out m --eval-fraction 0.3") == 0);
    CHECK(run("", "stackexchange many.xml --tokenizer hf --out s --eval-fraction 0.3 --seed 5") ==
          0);
}

/* Every kind has the same questions on a side, none is on both, and the seed decides. */
static void check_split(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    samples_t train = read_samples(comm, t, "prompt", "m-prompt-train.h5");
    samples_t eval = read_samples(comm, t, "prompt", "m-prompt-eval.h5");
    samples_t sft = read_samples(comm, t, "sft", "m-sft-eval.h5");
    samples_t pairs = read_samples(comm, t, "reward", "m-reward-eval.h5");
    samples_t other = read_samples(comm, t, "prompt", "s-prompt-eval.h5");
    CHECK(train.n + eval.n == 30 && eval.n > 3 && eval.n < 16);
    CHECK(sft.n == eval.n && pairs.n == eval.n);
    bool same = other.n == eval.n;
    for (int64_t i = 0; i < eval.n; i++) {
        size_t n = strlen(eval.text[i]) - 1; /* without the space that ends a prompt */
        CHECK(strncmp(eval.text[i], sft.text[i], n) == 0);
        CHECK(strncmp(eval.text[i], pairs.text[i], n) == 0);
        for (int64_t k = 0; k < train.n; k++)
            CHECK(strcmp(eval.text[i], train.text[k]) != 0);
        same = same && strcmp(eval.text[i], other.text[i]) == 0;
    }
    CHECK(!same);
    free_samples(&train);
    free_samples(&eval);
    free_samples(&sft);
    free_samples(&pairs);
    free_samples(&other);
}

int main(void)
{
    qp_tokenizer_t *tokenizer = make_tokenizer();
    run_on_dump();
    run_on_rows();
    run_on_empty_rows();
    run_on_many();
    qp_comm_t *comm = NULL;
    if (!CHECK_OK(qp_comm_create(&comm)))
        return 1;
    check_dumps(comm, tokenizer);
    check_rows(comm, tokenizer);
    check_empty_rows(comm, tokenizer);
    check_split(comm, tokenizer);
    qp_comm_destroy(&comm);
    qp_tokenizer_destroy(&tokenizer);
    return qp_test_end();
}
