/**
 * \file main.c
 * The SPMD program: arguments, then MPI, the deck and the run. Help and version work without MPI.
 */
#include <stdio.h>
#include <string.h>

#include "app/waiting.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/program.h"
#include "base/str.h"
#include "comm/comm.h"
#include "train/scaling/scaling.h"
#include "train/train.h"

static const char usage[] =
    "usage: quipu [options] DECK\n"
    "\n"
    "Fine-tunes a LLaMA-family model as the deck says. Start it under mpirun or a job script.\n"
    "\n"
    "  --dry-run            check the deck, the files and the memory plan, then stop\n"
    "  --plan-for MACHINE   memory and time of the run on a machine that this file describes, for "
    "1 "
    "to 1,024\n"
    "                       ranks; one process, without a launcher\n"
    "  --machine-help       what such a file may hold\n"
    "  --set path=value     replace or add a value of the deck or the machine (may be repeated)\n"
    "  --deck-help [group]  what a deck may hold\n"
    "  --deck-markdown      the same as the page doc/deck.md\n"
    "  --run-folder         print where the deck's run writes (for job scripts)\n"
    "  --version            version and revision\n"
    "  --help               this text\n"
    "\n"
    "Exit codes: 0 done; 1 internal error; 2 wrong input; 3 I/O failed; 10 stopped early with a "
    "good\n"
    "checkpoint: start again to continue.\n";

/* What to do besides running a deck. */
typedef enum {
    ACTION_RUN,
    ACTION_PLAN_FOR,
    ACTION_DECK_HELP,
    ACTION_DECK_MARKDOWN,
    ACTION_MACHINE_HELP,
    ACTION_RUN_FOLDER
} action_t;

typedef struct {
    action_t action;
    bool dry;
    const char *deck; /* with --deck-help, --machine-help: the group */
    const char *machine;
    const char **sets; /* [n_set] */
    int n_set;
} arguments_t;

/* Options beside the actions. */
enum { OPTION_DRY_RUN = 'd', OPTION_SET = 's' };

static const struct option options[] = {{"dry-run", no_argument, NULL, OPTION_DRY_RUN},
                                        {"set", required_argument, NULL, OPTION_SET},
                                        {"deck-help", no_argument, NULL, ACTION_DECK_HELP},
                                        {"deck-markdown", no_argument, NULL, ACTION_DECK_MARKDOWN},
                                        {"plan-for", required_argument, NULL, ACTION_PLAN_FOR},
                                        {"machine-help", no_argument, NULL, ACTION_MACHINE_HELP},
                                        {"run-folder", no_argument, NULL, ACTION_RUN_FOLDER},
                                        {0}};

/* Values of --set may hold any text, so names are checked where they are known to be some. */
static qp_error_t parse(int argc, char **argv, arguments_t *arguments)
{
    for (int option;;) {
        QP_TRY(qp_program_next("quipu", options, argc, argv, &option));
        if (option == -1)
            break;
        if (option == OPTION_SET && strchr(optarg, '=') == NULL)
            return QP_ERROR(QP_INPUT, "--set: path=value is expected, found %s", optarg);
        if (option == OPTION_SET)
            arguments->sets[arguments->n_set++] = optarg;
        else if (option == OPTION_DRY_RUN)
            arguments->dry = true;
        else
            arguments->action = (action_t)option;
        if (option == ACTION_PLAN_FOR)
            arguments->machine = optarg;
    }
    if (argc - optind > 1)
        return QP_ERROR(QP_INPUT, "one deck is expected, got %s and %s", argv[optind],
                        argv[optind + 1]);
    arguments->deck = argv[optind];
    if (argc > optind)
        QP_TRY(qp_program_check_name(arguments->deck));
    bool needs_deck = arguments->action == ACTION_RUN || arguments->action == ACTION_PLAN_FOR ||
                      arguments->action == ACTION_RUN_FOLDER;
    if (needs_deck && arguments->deck == NULL)
        return QP_ERROR(QP_INPUT, "a deck is expected; see quipu --help");
    return NULL;
}

static qp_error_t show_run_folder(const arguments_t *arguments, qp_str_t *text)
{
    qp_settings_t settings;
    QP_TRY(
        qp_settings_read(NULL, arguments->deck, arguments->sets, arguments->n_set, "", &settings));
    qp_str_printf(text, "%s/%s\n", settings.job.output, settings.job.name);
    qp_settings_fini(&settings);
    return NULL;
}

/* The actions that need no MPI. */
static qp_error_t show(const arguments_t *arguments)
{
    int n_group;
    const qp_deck_group_t *const *groups = qp_settings_groups(&n_group);
    qp_str_t text = {0};
    qp_error_t error = NULL;
    switch (arguments->action) {
    case ACTION_DECK_HELP:
        error = qp_deck_help(groups, n_group, arguments->deck, &text);
        break;
    case ACTION_DECK_MARKDOWN:
        qp_deck_document(groups, n_group, &text);
        break;
    case ACTION_MACHINE_HELP:
        groups = qp_machine_groups(&n_group);
        error = qp_deck_help(groups, n_group, arguments->deck, &text);
        break;
    case ACTION_RUN_FOLDER:
        error = show_run_folder(arguments, &text);
        break;
    case ACTION_RUN:
    case ACTION_PLAN_FOR:
        break;
    }
    if (error == NULL)
        fwrite(text.data, 1, text.n, stdout);
    qp_str_fini(&text);
    return error;
}

static char *join(int argc, char **argv)
{
    qp_str_t line = {0};
    for (int i = 0; i < argc; i++)
        qp_str_printf(&line, "%s%s", i > 0 ? " " : "", argv[i]);
    return line.data;
}

/* The deck's run on all ranks. */
static int run(const arguments_t *arguments, const char *command)
{
    qp_comm_t *comm = NULL;
    qp_settings_t settings;
    qp_error_t error = qp_comm_create(&comm);
    if (error != NULL)
        return qp_error_report(&error);
    error = qp_settings_read(comm, arguments->deck, arguments->sets, arguments->n_set, command,
                             &settings);
    if (error == NULL) {
        error = qp_train(comm, &settings, arguments->dry);
        qp_settings_fini(&settings);
    }
    int code;
    if (error != NULL && error->code == QP_STOPPED) {
        qp_log_info("%s", error->message);
        qp_error_destroy(&error);
        code = QP_STOPPED;
    } else {
        code = qp_error_report(&error);
    }
    qp_comm_destroy(&comm);
    return code;
}

/* Tables of the deck's run on the machine; they are printed even where a node is too small. */
static qp_error_t show_scaling(qp_comm_t *comm, const qp_settings_t *settings,
                               const qp_machine_t *machine)
{
    qp_scaling_t scaling;
    qp_str_t text = {0};
    qp_error_t error = qp_scaling_create(comm, settings, machine, &scaling);
    if (error == NULL) {
        qp_scaling_print(&scaling, &text);
        fwrite(text.data, 1, text.n, stdout);
        fflush(stdout);
        error = qp_scaling_check(&scaling);
    }
    qp_str_fini(&text);
    qp_scaling_fini(&scaling);
    return error;
}

/* Moves the machine's values of --set behind the deck's; returns how many are the deck's. */
static int part_sets(arguments_t *arguments)
{
    const char **machine = QP_NEW("arguments", const char *, arguments->n_set);
    int n_deck = 0, n_machine = 0;
    for (int i = 0; i < arguments->n_set; i++) {
        if (qp_machine_takes(arguments->sets[i]))
            machine[n_machine++] = arguments->sets[i];
        else
            arguments->sets[n_deck++] = arguments->sets[i];
    }
    for (int i = 0; i < n_machine; i++)
        arguments->sets[n_deck + i] = machine[i];
    qp_free(machine);
    return n_deck;
}

static int plan_for(arguments_t *arguments)
{
    qp_comm_t *comm = NULL;
    qp_machine_t machine;
    qp_settings_t settings;
    const int n_deck = part_sets(arguments), n_machine = arguments->n_set - n_deck;
    qp_error_t error =
        qp_machine_read(arguments->machine, arguments->sets + n_deck, n_machine, &machine);
    if (error != NULL)
        return qp_error_report(&error);
    error = qp_scaling_settings(&machine, arguments->deck, arguments->sets, n_deck, &settings);
    if (error == NULL) {
        error = qp_comm_create(&comm);
        if (error == NULL)
            error = show_scaling(comm, &settings, &machine);
        qp_settings_fini(&settings);
    }
    qp_machine_fini(&machine);
    const int code = qp_error_report(&error);
    qp_comm_destroy(&comm);
    return code;
}

int main(int argc, char **argv)
{
    if (qp_program_answers("quipu", usage, argc, argv))
        return QP_OK;
    arguments_t arguments = {.sets = QP_NEW("arguments", const char *, argc)};
    char *command = join(argc, argv);
    qp_error_t error = parse(argc, argv, &arguments);
    int code;
    if (error == NULL && arguments.action == ACTION_RUN) {
        qp_waiting_set(argv);
        code = run(&arguments, command);
    } else if (error == NULL && arguments.action == ACTION_PLAN_FOR) {
        code = plan_for(&arguments);
    } else {
        if (error == NULL)
            error = show(&arguments);
        code = qp_error_report(&error);
    }
    qp_free(command);
    qp_free(arguments.sets);
    code = qp_mem_exit_code(code);
    qp_log_fini();
    return code;
}
