/* quipu-merge: a base and an adapter become a model for use elsewhere. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/program.h"
#include "base/str.h"
#include "model/pass/pass.h"
#include "quipu-merge/outputs.h"

static const char usage[] =
    "usage: quipu-merge [options] BASE.h5 ADAPTER OUT\n"
    "\n"
    "Folds the PEFT adapter folder ADAPTER into a model, W + scaling B A in fp32, and writes OUT.\n"
    "\n"
    "  --to base        a base.h5 (default)\n"
    "  --to hf          an HF folder: config.json, safetensors, tokenizer\n"
    "  --to gguf-lora   the adapter alone, for llama.cpp\n"
    "  --to peft        the adapter alone, as PEFT writes it\n"
    "  --onto SOURCE    the original weights (HF folder or .gguf) instead of BASE.h5 dequantised\n"
    "  --precision P    of --to base: int8, llm_int8, bf16, fp32 (default: that of BASE.h5)\n"
    "  --lm-head P      of --to base: int8, or as the embedding: bf16, fp32 (default: that of\n"
    "                   BASE.h5; with --precision as the embedding)\n"
    "  --dtype T        of --to hf: bf16, fp16 or fp32 (default: fp32 for an fp32 base, else "
    "bf16)\n"
    "  --drop-head      leave out the adapter's score head\n"
    "  --no-logits      --to base: do not run both models to compare their logits\n"
    "  --version        version and revision\n"
    "  --help           this text\n"
    "\n"
    "A score head goes along unless it is dropped: without it, a merged reward model is none. A "
    "value\n"
    "head stays behind, since only PPO uses it. The change of the weights and (--to base) of the\n"
    "logits that rounding to the output's type causes is printed.\n"
    "Exit codes: 0 done, 2 the input is wrong, 3 reading or writing failed.\n";

typedef enum { TO_BASE, TO_HF, TO_GGUF_LORA, TO_PEFT, N_TO } to_t;
static const char *const to_names[N_TO] = {"base", "hf", "gguf-lora", "peft"};

typedef struct {
    const char *base, *adapter, *out, *onto, *lm_head;
    to_t to;
    qp_dtype_t dtype;
    qp_base_kinds_t kinds;
    bool dtype_given, precision_given, no_logits, drop_head;
} arguments_t;

/* --- arguments -------------------------------------------------------------------------------- */

static qp_error_t parse_to(const char *name, to_t *to)
{
    for (int i = 0; i < N_TO; i++)
        if (strcmp(name, to_names[i]) == 0) {
            *to = (to_t)i;
            return NULL;
        }
    return QP_ERROR(QP_INPUT, "--to %s: expected base, hf, gguf-lora or peft", name);
}

static qp_error_t parse_dtype(const char *name, qp_dtype_t *dtype)
{
    const qp_dtype_t allowed[] = {QP_BF16, QP_F16, QP_F32};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, qp_dtype_name(allowed[i])) == 0) {
            *dtype = allowed[i];
            return NULL;
        }
    return QP_ERROR(QP_INPUT, "--dtype %s: expected bf16, fp16 or fp32", name);
}

static qp_error_t take_option(void *owner, int option)
{
    arguments_t *args = owner;
    switch (option) {
    case 't':
        return parse_to(optarg, &args->to);
    case 'o':
        args->onto = optarg;
        return NULL;
    case 'd':
        args->dtype_given = true;
        return parse_dtype(optarg, &args->dtype);
    case 'p':
        args->precision_given = true;
        return qp_precision_parse(optarg, &args->kinds.linear);
    case 'e':
        args->lm_head = optarg;
        return NULL;
    case 'l':
        args->no_logits = true;
        return NULL;
    case 'h':
        args->drop_head = true;
        return NULL;
    }
    return NULL;
}

/* An option that the output has no use for is a mistake. */
static qp_error_t check_options(const arguments_t *args)
{
    const struct {
        const char *name;
        bool given, fits;
    } options[] = {
        {"--onto", args->onto != NULL, args->to == TO_BASE || args->to == TO_HF},
        {"--dtype", args->dtype_given, args->to == TO_HF},
        {"--precision", args->precision_given, args->to == TO_BASE},
        {"--lm-head", args->lm_head != NULL, args->to == TO_BASE},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (options[i].given && !options[i].fits)
            return QP_ERROR(QP_INPUT, "%s has no meaning with --to %s; see quipu-merge --help",
                            options[i].name, to_names[args->to]);
    return NULL;
}

static qp_error_t parse_arguments(int argc, char **argv, arguments_t *args)
{
    static const struct option options[] = {
        {"to", required_argument, NULL, 't'},      {"onto", required_argument, NULL, 'o'},
        {"dtype", required_argument, NULL, 'd'},   {"precision", required_argument, NULL, 'p'},
        {"lm-head", required_argument, NULL, 'e'}, {"no-logits", no_argument, NULL, 'l'},
        {"drop-head", no_argument, NULL, 'h'},     {0}};
    *args = (arguments_t){0};
    QP_TRY(qp_program_options("quipu-merge", options, argc, argv, take_option, args));
    if (argc - optind != 3)
        return QP_ERROR(QP_INPUT, "expected BASE.h5, ADAPTER and OUT; see quipu-merge --help");
    args->base = argv[optind];
    args->adapter = argv[optind + 1];
    args->out = argv[optind + 2];
    for (char *end = strchr(argv[optind + 2], '\0') - 1; end > args->out && *end == '/'; end--)
        *end = '\0'; /* names beside it are made from it */
    return check_options(args);
}

/* --- merging ---------------------------------------------------------------------------------- */

/* The precision of the base, unless another is asked for: an fp32 model stays one. */
static qp_error_t choose_types(arguments_t *args)
{
    qp_h5_t *file = NULL;
    qp_base_info_t info;
    QP_TRY(qp_h5_open(args->base, NULL, &file));
    qp_error_t error = qp_base_info_read(file, &info);
    const qp_weight_kind_t precision =
        args->precision_given ? args->kinds.linear : info.kinds.linear;
    if (error == NULL && (args->precision_given || args->lm_head != NULL))
        error = qp_base_kinds_choose(precision, args->lm_head, &args->kinds);
    else
        args->kinds = info.kinds;
    if (error == NULL && !args->dtype_given)
        args->dtype = info.kinds.linear == QP_WEIGHT_F32 ? QP_F32 : QP_BF16;
    qp_base_info_fini(&info);
    qp_error_t closing = qp_h5_close(&file);
    if (error != NULL)
        qp_error_destroy(&closing);
    return error != NULL ? error : closing;
}

/* The original weights must be of the same model as the base. */
static qp_error_t check_same_model(const arguments_t *args, const qp_source_t *base,
                                   const qp_source_t *onto)
{
    int64_t n_base, n_onto;
    const qp_tensor_spec_t *a = qp_source_tensors(base, &n_base);
    const qp_tensor_spec_t *b = qp_source_tensors(onto, &n_onto);
    bool same = n_base == n_onto;
    for (int64_t i = 0; same && i < n_base; i++)
        same = strcmp(a[i].name, b[i].name) == 0 && a[i].n_row == b[i].n_row &&
               a[i].n_col == b[i].n_col;
    if (!same)
        return QP_ERROR(QP_INPUT, "%s: is another model than %s: its tensors differ", args->onto,
                        args->base);
    return NULL;
}

static qp_error_t report_rounding(const arguments_t *args, qp_source_t *merged)
{
    qp_source_t *written = NULL;
    qp_rounding_t rounding;
    int64_t n_score;
    const char *type =
        args->to == TO_BASE ? qp_precision_name(args->kinds.linear) : qp_dtype_name(args->dtype);
    if (args->to == TO_HF && qp_source_score(merged, &n_score) != NULL)
        return NULL; /* a classifier is no source */
    QP_TRY(qp_source_open(args->out, &written));
    qp_error_t error = qp_source_rounding(merged, written, &rounding);
    qp_source_close(&written);
    if (error == NULL)
        qp_log_info("rounding to %s changed the linears' weights by %.3g on average, %.3g at most "
                    "(mean weight %.3g)",
                    type, rounding.mean_change, rounding.max_change, rounding.mean_weight);
    return error;
}

static qp_error_t write_merged(const arguments_t *args, qp_source_t *onto, const qp_peft_t *peft)
{
    qp_source_t *merged = NULL;
    qp_source_merged(onto, peft, &merged);
    qp_error_t error = args->to == TO_BASE ? qp_source_write_base(merged, args->out, args->kinds)
                                           : qp_merge_write_hf(merged, args->dtype, args->out);
    if (error == NULL)
        error = report_rounding(args, merged);
    qp_source_close(&merged);
    return error;
}

static qp_error_t write_output(const arguments_t *args, qp_source_t *base, const qp_peft_t *peft)
{
    if (args->to == TO_GGUF_LORA)
        return qp_merge_write_gguf_lora(peft, qp_source_config(base), args->out);
    if (args->to == TO_PEFT)
        return qp_peft_write(args->out, peft);
    if (args->onto == NULL)
        return write_merged(args, base, peft);
    qp_source_t *onto = NULL;
    QP_TRY(qp_source_open(args->onto, &onto));
    qp_error_t error = check_same_model(args, base, onto);
    if (error == NULL)
        error = write_merged(args, onto, peft);
    qp_source_close(&onto);
    return error;
}

static qp_error_t report_logits(const arguments_t *args, qp_source_t *base, const qp_peft_t *peft)
{
    qp_logit_change_t change;
    if (args->to != TO_BASE || args->no_logits || qp_source_tokenizer(base)->kind[0] == '\0')
        return NULL;
    QP_TRY(qp_merge_logit_change(base, args->adapter, peft, args->out, &change));
    qp_log_info("against %s with the adapter, logits changed by %.3g on average, %.3g at most",
                args->base, change.mean, change.max);
    return NULL;
}

/* What becomes of the adapter's heads is said, not guessed: a lost score head is a random reward.
 */
static void treat_heads(const arguments_t *args, qp_peft_t *peft)
{
    char *value_head = qp_format("%s/" QP_VALUE_HEAD_FILE, args->adapter);
    if (peft->score != NULL)
        qp_log_info("score head: %s", args->drop_head ? "dropped" : "kept");
    else if (args->drop_head)
        qp_log_info("score head: %s has none", args->adapter);
    if (args->drop_head) {
        peft->score = NULL;
        peft->n_score = 0;
    }
    if (access(value_head, F_OK) == 0)
        qp_log_info("value head: left behind, only PPO uses it");
    qp_free(value_head);
}

static qp_error_t merge(arguments_t *args)
{
    qp_source_t *base = NULL;
    qp_peft_t peft;
    const char *const in[] = {args->base, args->adapter, args->onto};
    QP_TRY(qp_merge_check_paths(in, args->onto != NULL ? 3 : 2, args->out,
                                args->to == TO_HF || args->to == TO_PEFT));
    QP_TRY(choose_types(args));
    QP_TRY(qp_source_open(args->base, &base));
    qp_error_t error = qp_peft_read(args->adapter, qp_source_config(base), &peft);
    if (error == NULL)
        treat_heads(args, &peft);
    if (error == NULL)
        error = write_output(args, base, &peft);
    if (error == NULL)
        error = report_logits(args, base, &peft);
    if (error == NULL)
        qp_log_info("%s: written (%s)", args->out, to_names[args->to]);
    qp_peft_fini(&peft);
    qp_source_close(&base);
    return error;
}

int main(int argc, char **argv)
{
    arguments_t args;
    if (qp_program_answers("quipu-merge", usage, argc, argv))
        return QP_OK;
    qp_error_t error = parse_arguments(argc, argv, &args);
    if (error == NULL)
        error = merge(&args);
    return qp_mem_exit_code(qp_error_report(&error));
}
