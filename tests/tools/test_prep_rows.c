/* Rows as others write them: what quipu-prep makes of each form, of files as people have them, and
 * where a completion begins. Programs run first, MPI starts in this process after them. */
#include "prepared.h"

#define USER "<|im_start|>user\n"
#define ASSISTANT "<|im_end|>\n<|im_start|>assistant\n"

#define U "{\"role\": \"user\", \"content\": \"u\"}"
#define A(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"

/* --- conversations ---------------------------------------------------------------------------- */

static void run_on_conversations(void)
{
    write_file(
        "talk.jsonl",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"s1\"}, {\"from\": \"gpt\", "
        "\"value\": \"yo\"}]}\n"
        "{\"conversations\": [{\"from\": \"system\", \"value\": \"be\"}, {\"from\": \"user\", "
        "\"value\": \"s2\"}, {\"from\": \"chatgpt\", \"value\": \"yo\"}, {\"from\": \"function\", "
        "\"value\": \"5\"}, {\"from\": \"model\", \"value\": \"so\"}]}\n"
        "{\"conversations\": [{\"role\": \"user\", \"content\": \"s3\"}, {\"role\": \"assistant\", "
        "\"content\": \"yo\"}], \"system\": \"be\", \"messages\": null, \"id\": "
        "123456789012345678901234567890}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"m\"}, "
        "{\"type\": \"text\", \"text\": \"1\"}]}, {\"role\": \"assistant\", \"content\": "
        "\"yo\"}]}\n"
        "{\"instruction\": \"a1\", \"input\": \"\", \"output\": \"yo\"}\n"
        "{\"instruction\": \"a2\", \"input\": \"in\", \"output\": \"yo\", \"text\": null}\n"
        "{\"instruction\": \"a3\", \"output\": \"yo\", \"history\": [[\"q\", \"r\"]], \"system\": "
        "\"be\"}\n"
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"p1\"}, {\"role\": \"assistant\", "
        "\"content\": \"old\"}, {\"role\": \"user\", \"content\": \"on\"}], \"completion\": "
        "[{\"role\": \"assistant\", \"content\": \"yo\"}]}\n"
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"p2\"}], \"completion\": \"yo\"}\n"
        "{\"prompt\": \"p3\", \"completion\": [{\"role\": \"assistant\", \"content\": \"yo\"}], "
        "\"text\": null}\n"
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"q1\"}], \"completion\": null}\n"
        /* without an answer, with an empty one, with an empty list */
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", "
        "\"content\": \" \"}]}\n"
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"x\"}, {\"from\": \"gpt\", "
        "\"value\": \"yo\"}, {\"from\": \"human\", \"value\": \"x\"}, {\"from\": \"gpt\", "
        "\"value\": \"\"}]}\n"
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"x\"}], \"completion\": []}\n"
        "{\"prompt\": []}\n");
    CHECK(run("", "jsonl talk.jsonl --tokenizer hf --out talk --eval-fraction 0 --max-bad 0") == 0);
    CHECK(n_logged("] 16 rows\n") == 1);
    CHECK(n_logged("] 4 skipped: conversations without an answer, or with an empty one (first: "
                   "talk.jsonl:12)\n") == 1);
    CHECK(n_logged("] 1 skipped: rows or documents without text (first: talk.jsonl:16)\n") == 1);
}

static void check_conversations(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    EXPECT(comm, t, "sft", "talk-sft-train.h5",
           "<|im_start|>system\nbe<|im_end|>\n" USER "q" ASSISTANT "[r<|im_end|>]\n" USER
           "a3" ASSISTANT "[yo" END "\n",
           "<|im_start|>system\nbe<|im_end|>\n" USER "s2" ASSISTANT
           "[yo<|im_end|>]\n<|im_start|>tool\n5" ASSISTANT "[so" END "\n",
           "<|im_start|>system\nbe<|im_end|>\n" USER "s3" ASSISTANT "[yo" END "\n",
           USER "a1" ASSISTANT "[yo" END "\n", USER "a2\n\nin" ASSISTANT "[yo" END "\n",
           USER "m1" ASSISTANT "[yo" END "\n",
           USER "p1" ASSISTANT "old<|im_end|>\n" USER "on" ASSISTANT "[yo" END "\n",
           USER "p2" ASSISTANT "[yo" END "\n", USER "p3" ASSISTANT "[yo" END "\n",
           USER "s1" ASSISTANT "[yo" END "\n");
    EXPECT(comm, t, "prompt", "talk-prompt-train.h5", USER "q1" ASSISTANT);
}

/* Templates that mark what is learnt: rows for which no mark is reached, whatever they write. */
static void run_on_marks(void)
{
    write_file("marks.jinja",
               "{% for m in messages %}{% if m.role == 'user' %}{% if 'mute' not in m.content %}{{ "
               "m.content }}{% endif %}{% elif m.content != 'no' %}{% generation %}{{ m.content "
               "}}{% endgeneration %}{% endif %}{% endfor %}");
    write_file(
        "marks.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, " A(
            "yes") "]}\n"
                   "{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}, " A(
                       "no") "]}\n"
                             "{\"messages\": [{\"role\": \"user\", \"content\": \"mute\"}, " A(
                                 "no") "]}\n"
                                       "{\"prompt\": [{\"role\": \"user\", \"content\": \"c\"}], "
                                       "\"chosen\": [" A("yes") "], \"rejected\": [" A(
                                           "no") "]}\n");
    CHECK(run("", "jsonl marks.jsonl --tokenizer hf --out marks --eval-fraction 0 --max-bad 0 "
                  "--chat-template marks.jinja") == 0);
    CHECK(n_logged("] 3 skipped: conversations of which the chat template marks nothing as learnt "
                   "(first: marks.jsonl:2)\n") == 1);
    CHECK(n_logged("] sft: 1 train and 0 eval samples") == 1);
}

/* --- pairs ------------------------------------------------------------------------------------ */

static void run_on_pairs(void)
{
    /* One pair in every way that it is written; with other forms beside it, which --kinds chooses.
     */
    write_file(
        "pairs.jsonl",
        "{\"prompt\": \"u\", \"chosen\": [" U
        "," A("c") "], \"rejected\": [" U "," A("r") "], \"messages\": [" U "," A(
            "c") "]}\n"
                 "{\"chosen\": [" U "," A("c") "], \"rejected\": [" U "," A(
                     "r") "]}\n"
                          "{\"prompt\": [" U "], \"chosen\": [" A("c") "], \"rejected\": [" A(
                              "r") "]}\n"
                                   "{\"prompt\": [" U "], \"chosen\": [" U
                                   "," A("c") "], \"rejected\": [" U "," A(
                                       "r") "]}\n"
                                            "{\"prompt\": \"u\", \"chosen\": "
                                            "[" A("c") "], \"rejected\": [" A(
                                                "r") "]}\n"
                                                     "{\"prompt\": [" U "], \"chosen\": \"c\", "
                                                     "\"rejected\": \"r\"}\n"
                                                     "{\"prompt\": [" U "], \"chosen\": \"c\", "
                                                     "\"rejected\": \"c\"}\n"
                                                     "{\"chosen\": \"q? yes\", "
                                                     "\"rejected\": \"q? "
                                                     "yes\"}\n");
    CHECK(run("", "jsonl pairs.jsonl --tokenizer hf --out pairs --eval-fraction 0 --max-bad 0") ==
          0);
    CHECK(n_logged("] 2 skipped: pairs of equal answers (first: pairs.jsonl:7)\n") == 1);
    CHECK(run("", "jsonl pairs.jsonl --tokenizer hf --out chosen --eval-fraction 0 --kinds sft") ==
          0);
    CHECK(n_logged("] 7 skipped: rows of a kind that --kinds leaves out (first: "
                   "pairs.jsonl:2)\n") == 1);
    /* Without a prompt: what both begin with; and borders within what the tokenizer merges. */
    write_file("strings.jsonl",
               "{\"chosen\": \"\\n\\nHuman: hi\\n\\nAssistant: yes\", \"rejected\": \"\\n\\nHuman: "
               "hi\\n\\nAssistant: no\"}\n"
               "{\"chosen\": \"Say: yes\", \"rejected\": \"Say: yes indeed\", \"prompt\": null}\n"
               "{\"prompt\": \"A: \", \"chosen\": \"4\", \"rejected\": \"good\"}\n"
               "{\"prompt\": \"B: \", \"chosen\": \"good\", \"rejected\": \"4\"}\n"
               "{\"prompt\": \"C: \", \"chosen\": \"5\", \"rejected\": \"4\"}\n");
    CHECK(run("", "jsonl strings.jsonl --tokenizer hf --out strings --eval-fraction 0") == 0);
}

static void check_pairs(qp_comm_t *comm, const qp_tokenizer_t *t)
{
#define PAIR USER "u" ASSISTANT "[c" END USER "u" ASSISTANT "[r" END "+1"
    EXPECT(comm, t, "reward", "pairs-reward-train.h5", PAIR, PAIR, PAIR, PAIR, PAIR, PAIR);
    EXPECT(comm, t, "sft", "chosen-sft-train.h5", USER "u" ASSISTANT "[c" END "\n");
    EXPECT(comm, t, "reward", "strings-reward-train.h5",
           "\n\nHuman: hi\n\nAssistant:[ yes" END "\n\nHuman: hi\n\nAssistant:[ no" END "+1",
           "A:[ 4" END "A:[ good" END "+1", "B:[ good" END "B:[ 4" END "+1",
           "C: [5" END "C: [4" END "+1", "Say:[ yes" END "Say:[ yes indeed" END "+1");
}

/* Sides of different forms, prompts under other names, and a system prompt beside them. */
#define TALK(text) "[" U ", " A(text) "]"
#define SAID(text) "[" A(text) "]"

static void add_pair(qp_str_t *rows, const char *keys, const char *chosen, const char *rejected)
{
    qp_str_printf(rows, "{%s\"chosen\": %s, \"rejected\": %s}\n", keys, chosen, rejected);
}

static void run_on_mixed_pairs(void)
{
    static const char *const mixed[][3] = {
        {"\"prompt\": \"u\", ", TALK("c"), "\"r\""},
        {"\"prompt\": \"u\", ", "\"c\"", TALK("r")},
        {"\"prompt\": \"u\", ", SAID("c"), TALK("r")},
        {"\"prompt\": [" U "], ", TALK("c"), SAID("r")},
        {"\"instruction\": \"u\", \"input\": \"\", ", "\"c\"", "\"r\""},
        {"\"instruction\": \"u\", ", TALK("c"), TALK("r")},
        {"\"question\": \"u\", ", SAID("c"), SAID("r")},
        /* a prompt of one side alone */
        {"", TALK("c"), "\"r\""},
        {"", "\"c\"", TALK("r")},
        {"\"prompt\": \"v\", ", TALK("c"), "\"r\""},
    };
    qp_str_t rows = {0};
    for (size_t i = 0; i < sizeof mixed / sizeof mixed[0]; i++)
        add_pair(&rows, mixed[i][0], mixed[i][1], mixed[i][2]);
    write_file("mixed.jsonl", rows.data);
    CHECK(run("", "jsonl mixed.jsonl --tokenizer hf --out mixed --eval-fraction 0 --max-bad 0.5") ==
          0);
    CHECK(n_logged("] 3 skipped: ") == 1);
    CHECK(n_logged("mixed.jsonl:8: rejected is text beside a list of messages in chosen, without a "
                   "prompt") == 1);
    qp_str_clear(&rows);
    add_pair(&rows, "\"question\": \"q\", ", "\" c\"", "\" r\"");
    add_pair(&rows, "\"question\": \"s\", \"system\": \"be\", ", "\"c\"", "\"r\"");
    qp_str_puts(&rows, "{\"prompt\": \"p\", \"response\": \" c\"}\n"
                       "{\"prompt\": [" U "], \"response\": \"c\"}\n");
    write_file("names.jsonl", rows.data);
    CHECK(run("", "jsonl names.jsonl --tokenizer hf --out names --eval-fraction 0 --max-bad 0") ==
          0);
    qp_str_clear(&rows);
    add_pair(&rows, "\"instruction\": \"u\", ", "\"c\"", "\"r\"");
    add_pair(&rows, "\"question\": \"s\", \"system\": \"be\", ", "\"c\"", "\"r\"");
    write_file("plain.jsonl", rows.data);
    CHECK(run("", "jsonl plain.jsonl --tokenizer plain --out plainpairs --eval-fraction 0") == 0);
    CHECK(n_logged("(first: plain.jsonl:2") == 1);
    qp_str_fini(&rows);
}

static void check_mixed_pairs(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    EXPECT(comm, t, "reward", "mixed-reward-train.h5", PAIR, PAIR, PAIR, PAIR, PAIR, PAIR, PAIR);
#define SYSTEM "<|im_start|>system\nbe<|im_end|>\n" USER "s" ASSISTANT
    EXPECT(comm, t, "reward", "names-reward-train.h5", SYSTEM "[c" END SYSTEM "[r" END "+1",
           "q[ c" END "q[ r" END "+1");
    EXPECT(comm, t, "sft", "names-sft-train.h5", USER "u" ASSISTANT "[c" END "\n", "p[ c" END);
    qp_tokenizer_t *plain = load_tokenizer("plain");
#define ASKED                                                                             \
    "Below is an instruction that describes a task. Write a response that appropriately " \
    "completes the request.\n\n### Instruction:\nu\n\n### Response:\n"
    EXPECT(comm, plain, "reward", "plainpairs-reward-train.h5", ASKED "[c]" ASKED "[r]+1");
    qp_tokenizer_destroy(&plain);
}

/* --- files ------------------------------------------------------------------------------------ */

static void run_on_files(void)
{
    write_file("windows.jsonl", "\xef\xbb\xbf{\"text\": \"a b\"}\r\n\r\n{\"text\": \"c d\"}\r\n");
    char *zip = qp_format("cd %s && (gzip <windows.jsonl && gzip <windows.jsonl) >two.jsonl.gz && "
                          "head -c 100 /dev/zero >>two.jsonl.gz",
                          qp_test_folder());
    CHECK(system(zip) == 0);
    qp_free(zip);
    CHECK(run("", "jsonl windows.jsonl two.jsonl.gz --tokenizer hf --out files --eval-fraction 0 "
                  "--max-bad 0") == 0);
    /* An array: an element that cannot be read is one row. */
    write_file("rows.json", "\xef\xbb\xbf[{\"text\": \"a, ] b\"},\n {\"text\": \"\\ud800\"},\n"
                            "{\"messages\": [" U ", " A("\\\"") "]}, {\"text\": nul}]\n");
    CHECK(run("", "jsonl rows.json --tokenizer hf --out array --eval-fraction 0 --max-bad 0.5") ==
          0);
    CHECK(n_logged("] 4 rows\n") == 1);
    CHECK(n_logged("] 2 skipped: not JSON (first: rows.json: row 2: holds half of a ") == 1);
    /* One that only begins like an array is rows. */
    write_file("begins.jsonl", "[\"text\": \"a b\"}\n{\"text\": \"c d\"}\n");
    CHECK(run("", "jsonl begins.jsonl --tokenizer hf --out begins --eval-fraction 0") == 0);
    CHECK(n_logged("] 1 skipped: not JSON (first: begins.jsonl:1: ") == 1);
    write_file("mark.txt", "\xef\xbb\xbfone\n");
    CHECK(run("", "text mark.txt --tokenizer hf --out mark --eval-fraction 0") == 0);
}

static void check_files(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    EXPECT(comm, t, "sft", "files-sft-train.h5", "[a b" END, "[a b" END, "[a b" END, "[c d" END,
           "[c d" END, "[c d" END);
    EXPECT(comm, t, "sft", "array-sft-train.h5", USER "u" ASSISTANT "[\"" END "\n", "[a, ] b" END);
    EXPECT(comm, t, "sft", "begins-sft-train.h5", "[c d" END);
    EXPECT(comm, t, "sft", "mark-sft-train.h5", "[one" END);
}

/* --- the model -------------------------------------------------------------------------------- */

/* Folders beside hf: without a chat template; with BOS; of a model with fewer ids. */
static void make_folders(const qp_tokenizer_t *t)
{
    char *command =
        qp_format("cd %s && mkdir -p plain bos small && for d in plain small; do cp "
                  "hf/tokenizer.json $d; done && cp %s bos/tokenizer.json",
                  qp_test_folder(), qp_test_source("tests/golden/tokenizers/llama3.json"));
    CHECK(system(command) == 0);
    qp_free(command);
    write_file("plain/tokenizer_config.json", "{}");
    write_file("plain/config.json", "{\"eos_token_id\": [2, 0]}");
    write_file("small/tokenizer_config.json", "{\"eos_token\": \"<|im_end|>\"}");
    char *config = qp_format("{\"vocab_size\": %lld}", (long long)qp_tokenizer_n_vocab(t) - 1);
    write_file("small/config.json", config);
    qp_free(config);
    write_file("bos/tokenizer_config.json",
               "{\"bos_token\": \"<|begin_of_text|>\", \"eos_token\": \"<|end_of_text|>\"}");
}

/* A row of the text of the last token, which the small model does not have, among others. */
static void run_on_small_model(const qp_tokenizer_t *t)
{
    const int32_t last = (int32_t)qp_tokenizer_n_vocab(t) - 1;
    qp_str_t text = {0};
    CHECK_OK(qp_tokenizer_decode(t, &last, 1, false, &text));
    char *rows = qp_format("{\"text\": \"a b\"}\n{\"prompt\": \"a\", \"completion\": \"%s\"}\n"
                           "{\"text\": \"c d\"}\n",
                           text.data);
    write_file("beyond.jsonl", rows);
    qp_free(rows);
    qp_str_fini(&text);
    for (int i = 0; i < 3; i++) {
        char *arguments =
            qp_format("jsonl beyond.jsonl --tokenizer small --out beyond%d --eval-fraction 0", i);
        CHECK(run(on_ranks[i], arguments) == 0);
        CHECK(n_logged("] 1 skipped: samples with a token that the model does not have (first: "
                       "beyond.jsonl:2: ") == 1);
        qp_free(arguments);
    }
}

static void run_on_models(const qp_tokenizer_t *t)
{
    make_folders(t);
    run_on_small_model(t);
    write_file("alpaca.jsonl",
               "{\"instruction\": \"do\", \"input\": \"\", \"output\": \"done\"}\n"
               "{\"instruction\": \"do\", \"input\": \"in\", \"output\": \"done\"}\n"
               "{\"text\": \"a<|im_end|>\"}\n{\"text\": \"b<|endoftext|>\"}\n");
    CHECK(run("", "jsonl alpaca.jsonl --tokenizer plain --out plain --eval-fraction 0") == 0);
    CHECK(n_logged("has no end-of-sequence token") == 0); /* config.json has two */
    write_file("bos.jsonl", "{\"text\": \"<|begin_of_text|>one\"}\n{\"text\": \"two\"}\n"
                            "{\"text\": \"three<|end_of_text|>\"}\n"
                            "{\"prompt\": \"<|begin_of_text|>q \", \"completion\": \"four\"}\n"
                            "{\"prompt\": \"q \", \"completion\": \"<|begin_of_text|>five\"}\n"
                            "{\"prompt\": \"<|begin_of_text|>six\"}\n"
                            "{\"prompt\": \"q\", \"completion\": \"<|end_of_text|>\"}\n"
                            "{\"text\": \"<|begin_of_text|>\"}\n");
    CHECK(run("", "jsonl bos.jsonl --tokenizer bos --out bos --eval-fraction 0") == 0);
    CHECK(n_logged("] 1 skipped: samples in which nothing is learnt (first: bos.jsonl:7)") == 1);
    CHECK(n_logged("] 1 skipped: rows or documents without text (first: bos.jsonl:8)") == 1);
    /* Nothing but reasons: no shard, no mean of nothing. */
    CHECK(run("", "jsonl bos.jsonl --tokenizer bos --out none --kinds reward 2>/dev/null") != 0);
    CHECK(n_logged("nothing in it makes a sample; 8 skipped: rows of a kind") == 1);
    write_file("plain/config.json", "{}");
    CHECK(run("", "jsonl bos.jsonl --tokenizer plain --out warned --eval-fraction 0") == 0);
    CHECK(n_logged("[warn") == 1 && n_logged("has no end-of-sequence token") == 1);
}

static void check_models(qp_comm_t *comm)
{
    qp_tokenizer_t *small = load_tokenizer("small");
    for (int i = 0; i < 3; i++) {
        char *name = qp_format("beyond%d-sft-train%s.h5", i, shards_of_ranks[i]);
        EXPECT(comm, small, "sft", name, "[a b" END, "[c d" END);
        qp_free(name);
    }
    qp_tokenizer_t *plain = load_tokenizer("plain"), *bos = load_tokenizer("bos");
#define BELOW "Below is an instruction that describes a task"
#define WRITE ". Write a response that appropriately completes the request.\n\n"
    EXPECT(comm, plain, "sft", "plain-sft-train.h5",
           BELOW ", paired with an input that provides further context" WRITE
                 "### Instruction:\ndo\n\n### Input:\nin\n\n### Response:\n[done" END,
           BELOW WRITE "### Instruction:\ndo\n\n### Response:\n[done" END, "[a" END,
           "[b<|endoftext|>]");
#define BOS "<|begin_of_text|>"
#define EOS "<|end_of_text|>]"
    EXPECT(comm, bos, "sft", "bos-sft-train.h5", BOS "q[ five" EOS, BOS "q[ four" EOS,
           "[" BOS "one" EOS, "[" BOS "three" EOS, "[" BOS "two" EOS);
    EXPECT(comm, bos, "prompt", "bos-prompt-train.h5", BOS "six");
    qp_tokenizer_destroy(&small);
    qp_tokenizer_destroy(&plain);
    qp_tokenizer_destroy(&bos);
}

/* --- the split -------------------------------------------------------------------------------- */

enum { N_QUESTION = 20 };

/* Each question in three forms, and as two posts of a dump. */
static void run_on_duplicates(void)
{
    qp_str_t rows = {0}, xml = {0};
    qp_str_puts(&xml, "<posts>");
    for (int i = 0; i < 3 * N_QUESTION; i++) {
        static const char *const forms[] = {
            "{\"prompt\": \"q%d\", \"completion\": [" A("yes") "]}\n",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"q%d\"}, " A("yes") "]}\n",
            "{\"instruction\": \" q%d\\n\", \"output\": \"yes\"}\n"};
        char *row = qp_format("%s", forms[i / N_QUESTION]);
        char *at = strstr(row, "%d");
        qp_str_printf(&rows, "%.*s%d%s", (int)(at - row), row, i % N_QUESTION, at + 2);
        qp_free(row);
        qp_str_printf(&xml, "<row Id='%d' PostTypeId='1' Body='q%d'/>", i + 1, i % N_QUESTION);
    }
    qp_str_puts(&xml, "</posts>");
    write_file("twice.jsonl", rows.data);
    write_file("twice.xml", xml.data);
    qp_str_fini(&rows);
    qp_str_fini(&xml);
    for (int i = 0; i < 3; i++) {
        char *arguments =
            qp_format("jsonl twice.jsonl --tokenizer hf --out twice%d --eval-fraction 0.3", i);
        CHECK(run(on_ranks[i], arguments) == 0);
        qp_free(arguments);
    }
    CHECK(run("", "stackexchange twice.xml --tokenizer hf --out xtwice --eval-fraction 0.3") == 0);
}

/* What stands on one side does not stand on the other. */
static void check_sides(qp_comm_t *comm, const qp_tokenizer_t *t, const char *kind,
                        const char *prefix, const char *shards)
{
    char *names[2] = {qp_format("%s-train%s.h5", prefix, shards),
                      qp_format("%s-eval%s.h5", prefix, shards)};
    samples_t train = read_samples(comm, t, kind, names[0]);
    samples_t eval = read_samples(comm, t, kind, names[1]);
    CHECK(train.n + eval.n == 3 * N_QUESTION && eval.n > 0 && eval.n % 3 == 0);
    for (int64_t i = 0; i < eval.n; i++)
        for (int64_t k = 0; k < train.n; k++)
            CHECK_MSG(strcmp(eval.text[i], train.text[k]) != 0, "on both sides: %s", eval.text[i]);
    free_samples(&train);
    free_samples(&eval);
    qp_free(names[0]);
    qp_free(names[1]);
}

static void check_duplicates(qp_comm_t *comm, const qp_tokenizer_t *t)
{
    for (int i = 0; i < 3; i++) {
        char *prefix = qp_format("twice%d-sft", i);
        check_sides(comm, t, "sft", prefix, shards_of_ranks[i]);
        qp_free(prefix);
    }
    check_sides(comm, t, "prompt", "xtwice-prompt", "");
}

int main(void)
{
    qp_tokenizer_t *tokenizer = make_tokenizer();
    run_on_conversations();
    run_on_marks();
    run_on_pairs();
    run_on_files();
    run_on_models(tokenizer);
    run_on_mixed_pairs();
    run_on_duplicates();
    qp_comm_t *comm = NULL;
    if (!CHECK_OK(qp_comm_create(&comm)))
        return 1;
    check_conversations(comm, tokenizer);
    check_pairs(comm, tokenizer);
    check_mixed_pairs(comm, tokenizer);
    check_files(comm, tokenizer);
    check_models(comm);
    check_duplicates(comm, tokenizer);
    qp_comm_destroy(&comm);
    qp_tokenizer_destroy(&tokenizer);
    return qp_test_end();
}
