/* quipu-import: a model of another program becomes a base.h5. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/program.h"
#include "base/timer.h"
#include "model/source.h"

static const char usage[] =
    "usage: quipu-import [options] SOURCE BASE.h5\n"
    "       quipu-import [options] --synthetic SHAPE BASE.h5\n"
    "\n"
    "SOURCE is an HF folder (config.json, safetensors, tokenizer), a .gguf file, or a base.h5.\n"
    "\n"
    "  --precision P      int8 (rotated, default), llm_int8, bf16 or fp32\n"
    "  --synthetic SHAPE  random weights: tiny, 135m, 1b, 3b, 7b, 8b, 13b, 30b, 65b, 70b, or\n"
    "                     key=value,... (n_layer d_model n_head n_kv_head head_dim d_ff n_vocab\n"
    "                     max_position tied attention_bias), or a name and changes: 7b,n_layer=2\n"
    "  --seed N           of the random weights (default 1)\n"
    "  --version          version and revision\n"
    "  --help             this text\n"
    "\n"
    "Exit codes: 0 done, 2 the input is wrong, 3 reading or writing failed.\n";

typedef struct {
    const char *from, *shape, *to;
    qp_precision_t precision;
    uint32_t seed;
} arguments_t;

static qp_error_t take_option(void *owner, int option)
{
    arguments_t *args = owner;
    char *end;
    unsigned long seed;
    switch (option) {
    case 'p':
        return qp_precision_parse(optarg, &args->precision);
    case 's':
        args->shape = optarg;
        return NULL;
    case 'n':
        seed = strtoul(optarg, &end, 10);
        args->seed = (uint32_t)seed;
        if (*optarg == '\0' || *end != '\0' || seed > UINT32_MAX)
            return QP_ERROR(QP_INPUT, "--seed \"%s\": expected an integer", optarg);
        return NULL;
    }
    return NULL;
}

static qp_error_t parse_arguments(int argc, char **argv, arguments_t *args)
{
    static const struct option options[] = {{"precision", required_argument, NULL, 'p'},
                                            {"synthetic", required_argument, NULL, 's'},
                                            {"seed", required_argument, NULL, 'n'},
                                            {0}};
    *args = (arguments_t){.precision = QP_PRECISION_INT8, .seed = 1};
    QP_TRY(qp_program_options("quipu-import", options, argc, argv, take_option, args));
    int n_expected = args->shape != NULL ? 1 : 2;
    if (argc - optind != n_expected)
        return QP_ERROR(QP_INPUT, "expected %s; see quipu-import --help",
                        n_expected == 1 ? "BASE.h5" : "SOURCE and BASE.h5");
    args->from = n_expected == 1 ? NULL : argv[optind];
    args->to = argv[argc - 1];
    return NULL;
}

static qp_error_t import(const arguments_t *args)
{
    double start = qp_time();
    qp_source_t *source = NULL;
    if (args->shape != NULL)
        QP_TRY(qp_source_synthetic(args->shape, args->seed, &source));
    else
        QP_TRY(qp_source_open(args->from, &source));
    qp_error_t error = qp_source_write_base(source, args->to, args->precision);
    if (error == NULL) {
        const qp_llama_config_t *c = qp_source_config(source);
        qp_log_info("%s: %s base of %ld layers, d_model %ld, vocabulary %ld, tokenizer %s; %.1f s",
                    args->to, qp_precision_name(args->precision), (long)c->n_layer,
                    (long)c->d_model, (long)c->n_vocab,
                    qp_source_tokenizer(source)->kind[0] ? qp_source_tokenizer(source)->kind
                                                         : "none",
                    qp_time() - start);
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
