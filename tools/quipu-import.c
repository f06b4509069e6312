/* quipu-import: a model of another program becomes a base.h5. */
#include <stdio.h>

#include "base/output.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/program.h"
#include "base/str.h"
#include "base/timer.h"
#include "import/source.h"
#include "text/chat.h"

static const char usage[] =
    "usage: quipu-import [options] SOURCE BASE.h5\n"
    "       quipu-import [options] --synthetic SHAPE BASE.h5\n"
    "\n"
    "SOURCE is an HF folder (config.json, generation_config.json, safetensors, tokenizer), a "
    ".gguf\n"
    "file, or a base.h5. What its files say is used as transformers uses it, or refused by name.\n"
    "The tokens that end an answer are those of all files; they are printed.\n"
    "\n"
    "  --precision P      int8 (rotated, default), llm_int8, bf16 or fp32\n"
    "  --lm-head P        as the embedding (default): bf16, or fp32 in an fp32 base; or int8\n"
    "                     (rotated), which takes half the memory where it is not tied\n"
    "  --synthetic SHAPE  random weights: tiny, 135m, 1b, 3b, 7b, 8b, 13b, 30b, 65b, 70b, or\n"
    "                     key=value,... (n_layer d_model n_head n_kv_head head_dim d_ff n_vocab\n"
    "                     max_position tied attention_bias), or a name and changes: 7b,n_layer=2\n"
    "  --seed N           of the random weights (default 1)\n"
    "  --no-weights       all but the weights: a small file that plans runs (quipu --dry-run) of "
    "a\n"
    "                     model, for any size of it, and makes none\n"
    "  --version          version and revision\n"
    "  --help             this text\n"
    "\n"
    "Exit codes: 0 done, 2 the input is wrong, 3 reading or writing failed.\n";

typedef struct {
    const char *from, *shape, *to;
    const char *lm_head; /* NULL: as the embedding */
    qp_base_kinds_t kinds;
    uint32_t seed;
    bool no_weights;
} arguments_t;

static qp_error_t take_option(void *owner, int option)
{
    arguments_t *args = owner;
    int64_t seed = 0;
    switch (option) {
    case 'p':
        return qp_precision_parse(optarg, &args->kinds.linear);
    case 'l':
        args->lm_head = optarg;
        return NULL;
    case 'w':
        args->no_weights = true;
        return NULL;
    case 's':
        args->shape = optarg;
        return NULL;
    case 'n':
        QP_TRY(qp_program_integer("seed", optarg, 0, UINT32_MAX, &seed));
        args->seed = (uint32_t)seed;
        return NULL;
    }
    return NULL;
}

static qp_error_t parse_arguments(int argc, char **argv, arguments_t *args)
{
    static const struct option options[] = {
        {"precision", required_argument, NULL, 'p'}, {"lm-head", required_argument, NULL, 'l'},
        {"synthetic", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'n'},
        {"no-weights", no_argument, NULL, 'w'},      {0}};
    *args = (arguments_t){.kinds.linear = QP_WEIGHT_INT8, .seed = 1};
    QP_TRY(qp_program_options("quipu-import", options, argc, argv, take_option, args));
    QP_TRY(qp_base_kinds_choose(args->kinds.linear, args->lm_head, &args->kinds));
    int n_expected = args->shape != NULL ? 1 : 2;
    if (argc - optind != n_expected)
        return QP_ERROR(QP_INPUT, "expected %s; see quipu-import --help",
                        n_expected == 1 ? "BASE.h5" : "SOURCE and BASE.h5");
    args->from = n_expected == 1 ? NULL : argv[optind];
    args->to = argv[argc - 1];
    return NULL;
}

/* --- what was found --------------------------------------------------------------------------- */

/* The special tokens of the model, and what may surprise about them: one line each. */
static void tell_tokens(const qp_source_t *source)
{
    const qp_llama_config_t *c = qp_source_config(source);
    qp_str_t text = {0};
    qp_str_puts(&text, "EOS");
    for (int i = 0; i < c->eos.n; i++)
        qp_str_printf(&text, "%s %d", i > 0 ? "," : "", (int)c->eos.id[i]);
    if (c->bos_token_id >= 0)
        qp_str_printf(&text, "; BOS %lld", (long long)c->bos_token_id);
    if (c->pad_token_id >= 0)
        qp_str_printf(&text, "; pad %lld", (long long)c->pad_token_id);
    if (c->eos.n > 0)
        qp_log_info("special tokens: %s", text.data);
    else
        qp_log_warn("no file of the model names an EOS: rows get none at their end, and answers "
                    "end by their length alone");
    qp_str_fini(&text);
}

/* Conversations need a template that can be run; texts do not. */
static void tell_template(const qp_source_t *source)
{
    const qp_tokenizer_t *tokenizer = qp_source_reader(source);
    if (tokenizer == NULL || qp_tokenizer_chat_template(tokenizer) == NULL)
        return;
    qp_chat_template_t *chat = NULL;
    qp_error_t error = qp_chat_template_create(tokenizer, "chat template", NULL, &chat);
    if (error != NULL)
        qp_log_warn("conversations cannot be prepared for this model: %s", error->message);
    qp_error_destroy(&error);
    qp_chat_template_destroy(&chat);
}

static void tell_limits(const qp_source_t *source)
{
    const qp_llama_config_t *c = qp_source_config(source);
    const qp_tokenizer_t *tokenizer = qp_source_reader(source);
    const int64_t n_text = tokenizer != NULL ? qp_tokenizer_n_vocab(tokenizer) : 0;
    if (n_text > c->n_vocab) {
        const char *token = qp_tokenizer_token(tokenizer, (int32_t)c->n_vocab);
        qp_log_warn("the tokenizer has %lld tokens, the model has %lld: rows that hold one beyond, "
                    "such as %s (%lld), cannot be learned from",
                    (long long)n_text, (long long)c->n_vocab, token != NULL ? token : "the next",
                    (long long)c->n_vocab);
    }
    if (c->sliding_window > 0)
        qp_log_info("sliding_window is %lld: runs with longer sequences are refused",
                    (long long)c->sliding_window);
}

static qp_error_t import(const arguments_t *args)
{
    double start = qp_time();
    qp_source_t *source = NULL;
    QP_TRY(qp_output_check_file(args->to));
    if (args->shape != NULL)
        QP_TRY(qp_source_synthetic(args->shape, args->seed, &source));
    else
        QP_TRY(qp_source_open(args->from, &source));
    qp_error_t error = (args->no_weights ? qp_source_write_head
                                         : qp_source_write_base)(source, args->to, args->kinds);
    if (error == NULL) {
        const qp_llama_config_t *c = qp_source_config(source);
        qp_log_info("%s: %s base of %ld layers, d_model %ld, vocabulary %ld, LM head %s, tokenizer "
                    "%s; %.1f s",
                    args->to, qp_precision_name(args->kinds.linear), (long)c->n_layer,
                    (long)c->d_model, (long)c->n_vocab, qp_precision_name(args->kinds.lm_head),
                    qp_source_tokenizer(source)->kind[0] ? qp_source_tokenizer(source)->kind
                                                         : "none",
                    qp_time() - start);
        tell_tokens(source);
        tell_template(source);
        tell_limits(source);
    }
    qp_source_close(&source);
    return error;
}

int main(int argc, char **argv)
{
    arguments_t args;
    if (qp_program_answers("quipu-import", usage, argc, argv))
        return QP_OK;
    qp_error_t error = parse_arguments(argc, argv, &args);
    if (error == NULL)
        error = import(&args);
    return qp_mem_exit_code(qp_error_report(&error));
}
