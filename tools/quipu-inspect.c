/* quipu-inspect: what is in a file of Quipu, whether it is intact, how two of them differ. */
#include <stdio.h>

#include "base/mem.h"
#include "base/program.h"
#include "quipu-inspect/inspect.h"

static const char usage[] =
    "usage: quipu-inspect [--tensors] [--verify] PATH\n"
    "       quipu-inspect --text BASE.h5 SHARD.h5\n"
    "       quipu-inspect --diff A B\n"
    "       quipu-inspect --watch RUN\n"
    "\n"
    "PATH is a base, shard or checkpoint (.h5), or a PEFT adapter folder.\n"
    "\n"
    "  --tensors   lists every data set or tensor\n"
    "  --verify    re-computes all checksums (an adapter: all numbers are finite)\n"
    "  --text      the samples of a shard as rows of JSON, as quipu-prep jsonl reads them: what "
    "the\n"
    "              model sees, without special tokens; a pair whose sides have different\n"
    "              prompts shows both whole\n"
    "  --diff      how two .h5 files differ: attributes, data sets, largest absolute and relative\n"
    "              (L2) difference\n"
    "  --watch     a run's folder in the terminal, every two seconds until it has ended: how far "
    "it "
    "is,\n"
    "              its curves, the end of its log; once where the output is no terminal\n"
    "  --version   version and revision\n"
    "  --help      this text\n"
    "\n"
    "Exit codes: 0 done (--diff: the same), 2 the file is damaged or the input is wrong (--diff: "
    "they\n"
    "differ), 3 reading failed.\n";

typedef struct {
    bool tensors, verify, text, diff, watch;
    const char *path, *other;
} arguments_t;

static qp_error_t take_option(void *owner, int option)
{
    arguments_t *args = owner;
    args->tensors |= option == 't';
    args->verify |= option == 'v';
    args->text |= option == 'x';
    args->diff |= option == 'd';
    args->watch |= option == 'w';
    return NULL;
}

static qp_error_t parse_arguments(int argc, char **argv, arguments_t *args)
{
    static const struct option options[] = {
        {"tensors", no_argument, NULL, 't'}, {"verify", no_argument, NULL, 'v'},
        {"text", no_argument, NULL, 'x'},    {"diff", no_argument, NULL, 'd'},
        {"watch", no_argument, NULL, 'w'},   {0}};
    *args = (arguments_t){0};
    QP_TRY(qp_program_options("quipu-inspect", options, argc, argv, take_option, args));
    if (argc - optind != (args->diff || args->text ? 2 : 1))
        return QP_ERROR(QP_INPUT, "expected %s; see quipu-inspect --help",
                        args->diff || args->text ? "two files" : "one path");
    args->path = argv[optind];
    args->other = argv[argc - 1];
    return NULL;
}

static qp_error_t inspect_two(const arguments_t *args)
{
    bool same;
    QP_TRY(qp_inspect_check_h5(args->path));
    QP_TRY(qp_inspect_check_h5(args->other));
    if (args->text)
        return qp_show_text(args->other, args->path);
    QP_TRY(qp_diff_h5(args->path, args->other, &same));
    return same ? NULL : QP_ERROR(QP_INPUT, "%s and %s differ", args->path, args->other);
}

static qp_error_t inspect(const arguments_t *args)
{
    bool adapter;
    if (args->watch)
        return qp_watch(args->path);
    if (args->diff || args->text)
        return inspect_two(args);
    QP_TRY(qp_inspect_kind(args->path, &adapter));
    QP_TRY(adapter ? qp_show_adapter(args->path, args->tensors)
                   : qp_show_h5(args->path, args->tensors));
    if (!args->verify)
        return NULL;
    return adapter ? qp_verify_adapter(args->path) : qp_verify_h5(args->path);
}

int main(int argc, char **argv)
{
    arguments_t args;
    if (qp_program_answers("quipu-inspect", usage, argc, argv))
        return QP_OK;
    qp_error_t error = parse_arguments(argc, argv, &args);
    if (error == NULL)
        error = inspect(&args);
    return qp_mem_exit_code(qp_error_report(&error));
}
