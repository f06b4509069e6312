/*
 * quipu-prep: texts to shards of token sequences. Runs alone or under mpirun, where every rank
 * takes a share of the samples and writes its own shards.
 */
#include "quipu-prep/prep.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/program.h"
#include "base/str.h"

static const char usage[] =
    "usage: quipu-prep SOURCE FILE... --base BASE.h5 --out PREFIX [options]\n"
    "\n"
    "Makes shards PREFIX-{sft,reward,prompt}-{train,eval}.h5 (under mpirun -n N: one of each per "
    "rank,\n"
    "...-00001-of-0000N.h5). SOURCE is one of\n"
    "  stackexchange  Posts.xml of a Stack Exchange dump: questions with their answers, as\n"
    "                 \"Question: ...\\n\\nAnswer: ...\"; pairs of answers by score; questions "
    "alone\n"
    "  jsonl          rows of JSON, one a line or all in one array. What has a value (null is "
    "none)\n"
    "                 says what a row is, the first of these whose kind is wanted:\n"
    "                   chosen, rejected     pairs; prompt, question or instruction beside them, "
    "or what\n"
    "                                        both begin with\n"
    "                   messages             conversations ({\"role\",\"content\"})\n"
    "                   conversations        the same as ShareGPT has it ({\"from\",\"value\"})\n"
    "                   prompt, completion   (or response)\n"
    "                   instruction, output  Alpaca; with input, system, history\n"
    "                   text\n"
    "                   prompt               prompts alone\n"
    "                 prompt, completion, chosen and rejected are text or lists of messages\n"
    "  html           pages with headings that are questions (FAQs): each with the text below it; "
    "pairs\n"
    "                 of its answer and the answer of another question; questions alone\n"
    "  text           plain text, documents separated by blank lines\n"
    "Files may be gzipped and begin with a byte-order mark.\n"
    "\n"
    "  --base FILE           base.h5 whose tokenizer is used\n"
    "  --tokenizer FOLDER    HF folder with the tokenizer, instead of --base\n"
    "  --out PREFIX          what the shards' names begin with\n"
    "  --eval-fraction X     share of questions (rows, documents) held out [0.05]\n"
    "  --kinds LIST          which of sft,reward,prompt to make [all that the source has]\n"
    "  --max-bad X           share of the rows (posts, documents) that may be bad; one always "
    "may,\n"
    "                        unless X is 0 [0.01]\n"
    "  --chat-template FILE  Jinja template for conversations, instead of the tokenizer's own\n"
    "  --max-tokens N        leave out samples with a longer sequence [0: no limit]\n"
    "  --seed N              decides the split and the choice of pairs [0]\n"
    "  --version             version and revision\n"
    "  --help                this text\n"
    "stackexchange only:\n"
    "  --answers WHICH       SFT samples: better (winners of the question's pairs, as the recipe), "
    "best\n"
    "                        (one a question) or all (not voted below zero) [better]\n"
    "  --pairs HOW           scores (answers of a question with different scores) or mismatched "
    "(its\n"
    "                        best answer and that of another question, for dumps with few votes;\n"
    "                        every rank then reads and holds the whole dump) [scores]\n"
    "  --max-pairs N         pairs of answers per question, by scores [10]\n"
    "  --with-title          put the question's title before its text [the recipe has the text "
    "alone]\n"
    "\n"
    "What is left out is counted by reason, with the first place of each. Bad, and counted "
    "against\n"
    "--max-bad: what is no JSON or a damaged row, nests too deep, has no known form, a value of "
    "the\n"
    "wrong type or an unknown role, HTML that cannot be read to its end, what the chat template "
    "does\n"
    "not take, tokens that the model does not have. Left out all the same: what gives nothing to "
    "learn\n"
    "(no text, no or an empty answer, equal answers, nothing that the template marks), is too long "
    "or\n"
    "of a kind that is not wanted.\n"
    "Exit codes: 0 done, 2 the input is wrong, 3 reading or writing failed.\n";

static const struct {
    const char *name;
    prep_source_t *read;
} sources[] = {
    {"stackexchange", prep_stackexchange},
    {"jsonl", prep_jsonl},
    {"html", prep_html},
    {"text", prep_text},
};
enum { N_SOURCE = sizeof sources / sizeof sources[0] };

/* --- shared by the sources -------------------------------------------------------------------- */

qp_error_t prep_check_interrupt(void)
{
    sigset_t pending;
    if (sigpending(&pending) == 0 &&
        (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1))
        return QP_ERROR(QP_IO, "interrupted; nothing was written");
    return NULL;
}

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

prep_text_t prep_trim(prep_text_t text)
{
    while (text.n > 0 && is_white(text.data[text.n - 1]))
        text.n--;
    while (text.n > 0 && is_white(text.data[0]))
        text.data++, text.n--;
    return text;
}

char *prep_question(prep_text_t question)
{
    qp_str_t text = {0};
    qp_str_puts(&text, "Question: ");
    qp_str_append(&text, question.data, question.n);
    qp_str_puts(&text, "\n\nAnswer: ");
    return text.data;
}

/* --- arguments -------------------------------------------------------------------------------- */

/* The index of text[0, n) among the names, or an error that lists them. */
static qp_error_t parse_choice(const char *option, const char *text, size_t n,
                               const char *const *names, int n_name, int *choice)
{
    qp_str_t all = {0};
    for (int i = 0; i < n_name; i++) {
        if (strlen(names[i]) == n && strncmp(names[i], text, n) == 0) {
            *choice = i;
            qp_str_fini(&all);
            return NULL;
        }
        qp_str_printf(&all, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    qp_error_t error =
        QP_ERROR(QP_INPUT, "%s \"%.*s\": expected one of %s", option, (int)n, text, all.data);
    qp_str_fini(&all);
    return error;
}

static qp_error_t parse_kinds(const char *text, bool kind[PREP_N_KIND])
{
    static const char *const names[] = {"sft", "reward", "prompt"};
    memset(kind, 0, PREP_N_KIND * sizeof kind[0]);
    for (;; text++) { /* on behind the comma */
        const size_t n = strcspn(text, ",");
        int choice = 0;
        QP_TRY(parse_choice("--kinds", text, n, names, PREP_N_KIND, &choice));
        kind[choice] = true;
        text += n;
        if (*text == '\0')
            return NULL;
    }
}

enum {
    BASE = 1,
    TOKENIZER,
    OUT,
    EVAL_FRACTION,
    KINDS,
    MAX_TOKENS,
    MAX_BAD,
    TEMPLATE,
    SEED,
    ANSWERS,
    PAIRS,
    MAX_PAIRS,
    TITLE
};

static const struct option long_options[] = {
    {"base", required_argument, NULL, BASE},
    {"tokenizer", required_argument, NULL, TOKENIZER},
    {"out", required_argument, NULL, OUT},
    {"eval-fraction", required_argument, NULL, EVAL_FRACTION},
    {"kinds", required_argument, NULL, KINDS},
    {"max-tokens", required_argument, NULL, MAX_TOKENS},
    {"max-bad", required_argument, NULL, MAX_BAD},
    {"chat-template", required_argument, NULL, TEMPLATE},
    {"seed", required_argument, NULL, SEED},
    {"answers", required_argument, NULL, ANSWERS},
    {"pairs", required_argument, NULL, PAIRS},
    {"max-pairs", required_argument, NULL, MAX_PAIRS},
    {"with-title", no_argument, NULL, TITLE},
    {NULL, 0, NULL, 0},
};

static qp_error_t take_option(void *owner, int option)
{
    prep_options_t *o = owner;
    const char *text = optarg;
    static const char *const answers[] = {"better", "best", "all"};
    static const char *const pairs[] = {"scores", "mismatched"};
    int64_t seed = 0;
    switch (option) {
    case BASE:
        o->base = text;
        break;
    case TOKENIZER:
        o->tokenizer = text;
        break;
    case OUT:
        o->out = text;
        break;
    case KINDS:
        return parse_kinds(text, o->kind);
    case ANSWERS:
        return parse_choice("--answers", text, strlen(text), answers, 3, &o->answers);
    case PAIRS:
        return parse_choice("--pairs", text, strlen(text), pairs, 2, &o->pairs);
    case TEMPLATE:
        o->chat_template = text;
        break;
    case MAX_BAD:
        return qp_program_number("max-bad", text, 0.0, 1.0, &o->max_bad);
    case TITLE:
        o->with_title = true;
        break;
    case EVAL_FRACTION:
        return qp_program_number("eval-fraction", text, 0.0, 1.0, &o->eval_fraction);
    case MAX_TOKENS:
        return qp_program_integer("max-tokens", text, 0, 1000000000, &o->max_tokens);
    case MAX_PAIRS:
        return qp_program_integer("max-pairs", text, 0, 1000000, &o->max_pairs);
    case SEED:
        QP_TRY(qp_program_integer("seed", text, 0, UINT32_MAX, &seed));
        o->seed = (uint32_t)seed;
        break;
    }
    return NULL;
}

static qp_error_t parse_arguments(int argc, char **argv, prep_options_t *o, int *source)
{
    const char *names[N_SOURCE];
    *o = (prep_options_t){
        .kind = {true, true, true}, .eval_fraction = 0.05, .max_bad = 0.01, .max_pairs = 10};
    QP_TRY(qp_program_options("quipu-prep", long_options, argc, argv, take_option, o));
    for (int i = 0; i < N_SOURCE; i++)
        names[i] = sources[i].name;
    if (argc - optind < 2)
        return QP_ERROR(QP_INPUT,
                        "a source and at least one file are needed; see quipu-prep --help");
    const char *name = argv[optind];
    QP_TRY(parse_choice("source", name, strlen(name), names, N_SOURCE, source));
    o->file = (const char *const *)&argv[optind + 1];
    o->n_file = argc - optind - 1;
    if ((o->base == NULL) == (o->tokenizer == NULL))
        return QP_ERROR(QP_INPUT, "either --base or --tokenizer is needed");
    if (o->out == NULL || o->out[0] == '\0')
        return QP_ERROR(QP_INPUT, "--out is needed");
    return NULL;
}

/* --- the run ---------------------------------------------------------------------------------- */

static qp_error_t run(qp_comm_t *comm, int argc, char **argv)
{
    prep_options_t options;
    int source;
    prep_model_t model = {0};
    prep_sink_t *sink = NULL;
    char *what = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(parse_arguments(argc, argv, &options, &source));
    QP_TRY_DONE(qp_comm_agree(comm, prep_model_load(&options, &model)));
    what = qp_format("%s %s%s", sources[source].name, options.file[0],
                     options.n_file > 1 ? " ..." : "");
    QP_TRY_DONE(prep_sink_create(comm, &options, &model, what, &sink));
    error = sources[source].read(&options, qp_comm_rank(comm), qp_comm_size(comm), sink);
    QP_TRY_DONE(qp_comm_agree(comm, error));
    error = prep_sink_commit(sink);
done:
    prep_sink_destroy(&sink);
    prep_model_fini(&model);
    qp_free(what);
    return error;
}

int main(int argc, char **argv)
{
    if (qp_program_answers("quipu-prep", usage, argc, argv))
        return QP_OK;
    /* Blocked before MPI starts its threads: prep_check_interrupt() sees them pending. */
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);

    qp_comm_t *comm = NULL;
    qp_error_t error = qp_comm_create(&comm);
    if (error == NULL)
        error = run(comm, argc, argv);
    bool speaks = comm == NULL || qp_comm_rank(comm) == 0;
    int code = error != NULL ? (int)error->code : QP_OK;
    if (speaks)
        qp_error_report(&error);
    qp_error_destroy(&error);
    qp_comm_destroy(&comm);
    return qp_mem_exit_code(code);
}
