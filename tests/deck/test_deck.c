/* QP_TEST: ranks=1,3
 * Decks: values and their sources, every kind of mistake with file and line, echo, hash, documents.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "deck/deck.h"
#include "testing.h"

typedef struct {
    int method;
    const char *name, *file, *folder;
    int64_t seed, count;
    double lr, tiny;
    bool on;
    qp_deck_strings_t targets;
    qp_deck_ints_t range;
    int64_t horizon;
} config_t_;

#define FIELD(type, member) QP_DECK_FIELD(type, config_t_, member)
static const qp_deck_key_t job_keys[] = {
    {"job.method", FIELD(QP_DECK_CHOICE, method), NULL, 0, 0, "sft|ppo|eval", "", "What to do.",
     QP_DECK_REQUIRED},
    {"job.name", FIELD(QP_DECK_STRING, name), "\"run\"", 0, 0, NULL, "", "Name of the run.",
     QP_DECK_RESTART_OK},
    {"job.seed", FIELD(QP_DECK_INT, seed), "1", 0, 4294967295.0, NULL, "", "Seed.", 0},
    {"job.count", FIELD(QP_DECK_INT, count), "-5", 0, 0, NULL, "steps", "Unbounded.", 0},
};
static const qp_deck_key_t optim_keys[] = {
    {"optim.lr", FIELD(QP_DECK_FLOAT, lr), NULL, 1e-9, 1.0, NULL, "", "Learning rate.",
     QP_DECK_REQUIRED},
    {"optim.tiny", FIELD(QP_DECK_FLOAT, tiny), "1.0e-8", 0, 0, NULL, "", "A small number.", 0},
    {"optim.on", FIELD(QP_DECK_BOOL, on), "true", 0, 0, NULL, "", "A switch.", 0},
    {"optim.targets", FIELD(QP_DECK_STRINGS, targets), "[ \"q\", \"v\" ]", 0, 0, NULL, "", "Names.",
     0},
    {"optim.range", FIELD(QP_DECK_INTS, range), NULL, 0, 100, NULL, "", "A range.",
     QP_DECK_OPTIONAL},
    {"optim.file", FIELD(QP_DECK_STRING, file), NULL, 0, 0, NULL, "", "A file.",
     QP_DECK_OPTIONAL | QP_DECK_PATH},
    {"optim.folder", FIELD(QP_DECK_STRING, folder), NULL, 0, 0, NULL, "", "A folder.",
     QP_DECK_OPTIONAL | QP_DECK_PATH | QP_DECK_FOLDER},
};
static const qp_deck_key_t ppo_keys[] = {
    {"ppo.horizon", FIELD(QP_DECK_INT, horizon), NULL, 1, 100, NULL, "steps", "Horizon.",
     QP_DECK_REQUIRED},
};
static const qp_deck_group_t job = {"job", "The job.", NULL, job_keys, 4};
static const qp_deck_group_t optim = {"optim", "The optimiser.", NULL, optim_keys, 7};
static const qp_deck_group_t ppo = {"ppo", "The policy.", "ppo", ppo_keys, 1};
static const qp_deck_group_t *const groups[] = {&job, &optim, &ppo};

static qp_error_t parse(const char *text, const char *const *sets, int n_set, config_t_ *config,
                        qp_deck_t **deck)
{
    QP_TRY(qp_deck_parse("a.cfg", text, groups, 3, sets, n_set, deck));
    for (int g = 0; g < 3; g++)
        qp_deck_fill(*deck, groups[g], config);
    return NULL;
}

static void test_values_and_defaults(void)
{
    config_t_ c;
    qp_deck_t *deck = NULL;
    const char *text = "job = { method = \"sft\"; seed = 3000000000; };\n"
                       "optim : { lr = 1; /* 3 */ on = FALSE // no\n; targets = \"k\"\n"
                       "; range = [ 2, 0x10 ]; };\n";
    if (!CHECK_OK(parse(text, NULL, 0, &c, &deck)))
        return;
    CHECK(c.method == 0 && c.seed == 3000000000 && c.count == -5 && c.lr == 1.0 && c.tiny == 1e-8);
    CHECK(strcmp(c.name, "run") == 0 && c.file == NULL && !c.on && c.horizon == 0);
    CHECK(c.targets.n == 1 && strcmp(c.targets.item[0], "k") == 0);
    CHECK(c.range.n == 2 && c.range.item[0] == 2 && c.range.item[1] == 16);
    char *where = qp_deck_where(deck, "optim.targets");
    CHECK_MSG(strcmp(where, "a.cfg:3: optim.targets") == 0, "%s", where);
    qp_free(where);
    where = qp_deck_where(deck, "job.name");
    CHECK(strcmp(where, "job.name (default)") == 0);
    qp_free(where);
    qp_deck_destroy(&deck);
}

static void test_sets_override(void)
{
    config_t_ c;
    qp_deck_t *deck = NULL;
    const char *text = "job = { method = \"sft\"; };\noptim = { lr = 0.5; };";
    const char *const sets[] = {
        "optim.lr=1e-4",         "job.name=12",   "optim.targets=all-linear",
        "optim.on=false",        "job.count = 7", "job.count=8",
        "job.method=ppo",        "ppo.horizon=3", "optim.range=[1,2,3]",
        "optim.file=\"a b\\\"\""};
    if (!CHECK_OK(parse(text, sets, 10, &c, &deck)))
        return;
    CHECK(c.lr == 1e-4 && strcmp(c.name, "12") == 0 && !c.on && c.count == 8 && c.method == 1);
    CHECK(c.targets.n == 1 && strcmp(c.targets.item[0], "all-linear") == 0);
    CHECK(c.range.n == 3 && c.range.item[2] == 3 && c.horizon == 3);
    CHECK(c.file != NULL && strcmp(c.file, "a b\"") == 0);
    char *where = qp_deck_where(deck, "optim.lr");
    CHECK(strcmp(where, "--set optim.lr") == 0);
    qp_free(where);
    qp_deck_destroy(&deck);
}

/* One mistake each: the deck, and the message. */
static const struct {
    const char *text, *set, *message;
} mistakes[] = {
#define SFT "job = { method = \"sft\"; };\n"
#define LR "optim = { lr = 0.1; };\n"
    {SFT "optim = { lr = 0.1\n; lrr = 1; };", NULL,
     "a.cfg:3: optim.lrr: unknown key; did you mean optim.lr?"},
    {SFT LR "optin = { };", NULL, "a.cfg:3: optin: unknown group; did you mean optim?"},
    {SFT LR "group.seed = 1;", NULL, "a.cfg:3: syntax error: group.seed = 1;"},
    {SFT LR "seed = 1;", NULL, "a.cfg:3: seed: unknown group"},
    {"job = { method = \"sft\";\n  seed = 1;\n  seed = 2; };\n" LR, NULL,
     "a.cfg:3: duplicate setting name: seed = 2; };"},
    {SFT LR LR, NULL, "a.cfg:3: duplicate setting name: optim = { lr = 0.1; };"},
    {SFT "optim = 5;", NULL, "a.cfg:2: optim: expected a group: optim = { ... };"},
    {SFT "optim = { lr = \"x\"; };", NULL, "a.cfg:2: optim.lr: expected a number, found \"x\""},
    {SFT "optim = { lr = 2.0; };", NULL, "a.cfg:2: optim.lr: 2 is out of range: 1e-09 to 1"},
    {SFT "optim = { lr = 1e999; };", NULL, "a.cfg:2: optim.lr: not a finite number"},
    {"job = { method = \"sft\"; seed = 1.0; };\n" LR, NULL,
     "a.cfg:1: job.seed: expected an integer, found 1.0"},
    {"job = { method = \"sft\"; seed = true; };\n" LR, NULL,
     "a.cfg:1: job.seed: expected an integer, found true"},
    {"job = { method = \"sft\"; seed = -1; };\n" LR, NULL, "a.cfg:1: job.seed: -1 is out of range"},
    {"job = { method = \"sft\"; count = 9223372036854775808; };\n" LR, NULL,
     "a.cfg:1: 9223372036854775808 does not fit into 64 bits"},
    {"job = { method = \"sft\"; name = 5; };\n" LR, NULL,
     "a.cfg:1: job.name: expected a string in quotes, found 5"},
    {"job = { method = \"sft\"; name = x; };\n" LR, NULL, "a.cfg:1: syntax error"},
    {"job = { method = \"sfd\"; };\n" LR, NULL,
     "a.cfg:1: job.method: expected one of sft|ppo|eval, found \"sfd\""},
    {SFT "optim = { lr = 0.1; on = 1; };", NULL,
     "a.cfg:2: optim.on: expected true or false, found 1"},
    {SFT "optim = { lr = 0.1; targets = []; };", NULL, "optim.targets: expected a list of strings"},
    {SFT "optim = { lr = 0.1; targets = (); };", NULL, "found an empty list"},
    {SFT "optim = { lr = 0.1; targets = [ 1, 2 ]; };", NULL, "expected a list of strings"},
    {SFT "optim = { lr = 0.1; targets = ( \"a\", 2 ); };", NULL, "expected a list of strings"},
    {SFT "optim = { lr = 0.1; range = [ \"a\" ]; };", NULL, "expected a list of integers"},
    {SFT "optim = { lr = 0.1; range = [ 1, 101 ]; };", NULL, "101 is out of range: 0 to 100"},
    {SFT "optim = { lr = { x = 1; }; };", NULL, "optim.lr: expected a number, found a group"},
    {LR, NULL, "a.cfg: job.method: required key is missing (What to do.)"},
    {SFT, NULL, "a.cfg: optim.lr: required key is missing"},
    {"job = { method = \"ppo\"; };\n" LR, NULL, "a.cfg: ppo.horizon: required key is missing"},
    {SFT LR "ppo = { horizon = 3; };", NULL,
     "a.cfg:3: ppo.horizon: group ppo is for job.method = ppo, not \"sft\""},
    {SFT LR "@include \"b.cfg\"\n", NULL, "a.cfg:3: @include is not supported"},
    {SFT LR "group", NULL, "a.cfg:3: syntax error"},
    {"", NULL, "a.cfg: job.method: required key is missing"},
    {SFT LR, "optim.lrr=1", "--set optim.lrr: unknown key; did you mean optim.lr?"},
    {SFT LR, "optim.lr", "--set optim.lr: expected --set optim.lr=value"},
    {SFT LR, "optim.lr=", "--set optim.lr: cannot read \"\" as a value"},
    {SFT LR, "optim.lr=x", "--set optim.lr: cannot read \"x\" as a value"},
    {SFT LR, "optim.lr=1; on = 1", "--set optim.lr: cannot read"},
    {SFT LR, "optim.lr=7.0", "--set optim.lr: 7 is out of range"},
    {SFT LR, "job.count=99999999999999999999", "--set job.count: 99999999999999999999 is no value"},
    {SFT LR, "job.method=pp", "--set job.method: expected one of sft|ppo|eval, found \"pp\""},
    {SFT LR, "ppo.horizon=3", "--set ppo.horizon: group ppo is for job.method = ppo"},
};

static void test_mistakes(void)
{
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        config_t_ c;
        qp_deck_t *deck = NULL;
        if (!CHECK_FAILS(
                parse(mistakes[i].text, &mistakes[i].set, mistakes[i].set != NULL, &c, &deck),
                QP_INPUT, mistakes[i].message))
            fprintf(stderr, "  deck %zu: %s\n", i, mistakes[i].text);
        CHECK(deck == NULL);
    }
}

/* Also that one mistake is reported once. */
static void test_all_at_once(void)
{
    config_t_ c;
    qp_deck_t *deck = NULL;
    const char *const sets[] = {"job.sead=1"};
    qp_error_t error = parse("job = { methd = \"sft\";\n seed = \"a\"; };\n"
                             "optim = { lr = true; };\n@include \"x\"\n",
                             NULL, 0, &c, &deck);
    CHECK_FAILS(error, QP_INPUT, "a.cfg:4: @include");
    error = parse("job = { methd = \"sft\";\n seed = \"a\"; };\noptim = { lr = true; };\n", sets, 1,
                  &c, &deck);
    if (CHECK(error != NULL))
        CHECK_MSG(strcmp(error->message,
                         "a.cfg:1: job.methd: unknown key; did you mean job.method?" QP_ERROR_NEXT
                         "a.cfg:2: job.seed: expected an integer, found \"a\"" QP_ERROR_NEXT
                         "a.cfg:3: optim.lr: expected a number, found true" QP_ERROR_NEXT
                         "--set job.sead: unknown key; did you mean job.seed?" QP_ERROR_NEXT
                         "a.cfg: job.method: required key is missing (What to do.)") == 0,
                  "%s", error->message);
    qp_error_destroy(&error);
}

static void test_echo_reads_back_exactly(void)
{
    const char *text = "job = { method = \"ppo\"; name = \"a \\\"b\\\\\\n\\x01ü\"; count = "
                       "-9223372036854775808; };\n"
                       "optim = { lr = 0.1; tiny = 1.2345678901234567e-300; targets = [ \"x#y\", "
                       "\"//z\" ]; range = 7; };\nppo = { horizon = 9; };\n";
    const char *const sets[] = {"job.seed=4294967295"};
    config_t_ c, again;
    qp_deck_t *deck = NULL, *echoed = NULL;
    qp_str_t used = {0}, used_again = {0};
    if (!CHECK_OK(parse(text, sets, 1, &c, &deck)))
        return;
    qp_deck_echo(deck, "quipu 1\nby test", &used);
    CHECK(strncmp(used.data, "# quipu 1\n# by test\n", 20) == 0);
    CHECK(strstr(used.data, "# --set") != NULL && strstr(used.data, "# a.cfg:1") != NULL &&
          strstr(used.data, "# default") != NULL &&
          strstr(used.data, "# file is not given") != NULL);
    if (CHECK_OK(parse(used.data, NULL, 0, &again, &echoed))) {
        CHECK(qp_deck_hash(echoed) == qp_deck_hash(deck));
        CHECK(again.tiny == c.tiny && again.lr == c.lr && again.count == INT64_MIN);
        CHECK(strcmp(again.name, c.name) == 0 && strcmp(c.name, "a \"b\\\n\001ü") == 0);
        CHECK(again.seed == 4294967295 && again.range.n == 1 && again.range.item[0] == 7);
        CHECK(again.targets.n == 2 && strcmp(again.targets.item[1], "//z") == 0);
    }
    qp_deck_destroy(&deck);
    qp_deck_destroy(&echoed);
    qp_str_fini(&used);
    qp_str_fini(&used_again);
}

/* Every double must come back with its bits. */
static void test_numbers_are_exact(void)
{
    const double numbers[] = {
        1e22,     1e-7,  0.1,  1.0 / 3.0,   123456789.0, 5e-324, 1.7976931348623157e308,
        100000.0, 1e100, -0.0, 4294967296.0};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        config_t_ c, again;
        qp_deck_t *deck = NULL, *echoed = NULL;
        qp_str_t used = {0};
        char set[64];
        snprintf(set, sizeof set, "optim.tiny=%.17e", numbers[i]);
        const char *const sets[] = {set};
        if (CHECK_OK(parse(SFT LR, sets, 1, &c, &deck))) {
            qp_deck_echo(deck, NULL, &used);
            CHECK_OK(parse(used.data, NULL, 0, &again, &echoed));
            CHECK_MSG(memcmp(&again.tiny, &numbers[i], sizeof(double)) == 0, "%a came back as %a",
                      numbers[i], again.tiny);
        }
        qp_str_fini(&used);
        qp_deck_destroy(&deck);
        qp_deck_destroy(&echoed);
    }
}

static void test_hash_sees_what_must_not_change(void)
{
    const struct {
        const char *set;
        bool same;
    } cases[] = {{"job.name=other", true}, {"job.seed=1", true},    {"job.seed=2", false},
                 {"optim.lr=0.1", true},   {"optim.lr=0.2", false}, {"optim.file=x", false}};
    config_t_ c;
    qp_deck_t *deck = NULL;
    CHECK_OK(parse(SFT LR, NULL, 0, &c, &deck));
    uint64_t hash = qp_deck_hash(deck);
    qp_str_t fingerprint = {0};
    qp_deck_fingerprint(deck, &fingerprint);
    CHECK_MSG(strcmp(fingerprint.data,
                     "job.count = -5\njob.method = \"sft\"\njob.seed = 1\n"
                     "optim.lr = 0.1\noptim.on = true\n"
                     "optim.targets = [ \"q\", \"v\" ]\noptim.tiny = 1e-08\n") == 0,
              "%s", fingerprint.data);
    qp_str_fini(&fingerprint);
    qp_deck_destroy(&deck);
    /* Defaults are defaults whoever gave them: a key that is no default, or one not kept, is not
     * among them. */
    const char *const sets[] = {"job.seed=1", "optim.on=false", "optim.tiny=0.00000001"};
    qp_str_t at_default = {0};
    CHECK_OK(parse(SFT LR, sets, 3, &c, &deck));
    qp_deck_at_default(deck, &at_default);
    CHECK_MSG(strcmp(at_default.data, " job.seed job.count optim.tiny optim.targets ") == 0, "%s",
              at_default.data);
    qp_str_fini(&at_default);
    qp_deck_destroy(&deck);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(parse(SFT LR, &cases[i].set, 1, &c, &deck));
        CHECK_MSG((qp_deck_hash(deck) == hash) == cases[i].same, "%s", cases[i].set);
        qp_deck_destroy(&deck);
    }
}

static void test_documents(void)
{
    qp_str_t out = {0};
    CHECK_OK(qp_deck_help(groups, 3, "optim", &out));
    CHECK(strstr(out.data, "optim.lr  (number, 1e-09 to 1; required)") != NULL);
    CHECK(strstr(out.data, "job.") == NULL);
    qp_str_clear(&out);
    CHECK_OK(qp_deck_help(groups, 3, NULL, &out));
    CHECK(strstr(out.data, "Only with job.method = \"ppo\".") != NULL);
    CHECK(strstr(out.data, "job.method  (one of \"sft\", \"ppo\", \"eval\"; required)") != NULL);
    CHECK(strstr(out.data, "job.name  (string; default \"run\"; may change on restart)") != NULL);
    CHECK_FAILS(qp_deck_help(groups, 3, "nix", &out), QP_INPUT,
                "no deck group \"nix\"; there are: job optim ppo");
    qp_str_clear(&out);
    qp_deck_document(groups, 3, &out);
    CHECK(strncmp(out.data, "# Deck reference\n", 17) == 0);
    CHECK(strstr(out.data, "## ppo\n") != NULL);
    CHECK(strstr(out.data, "| `job.count` | integer, steps | `-5` | fixed | Unbounded. |") != NULL);
    CHECK(strstr(out.data, "one of `\"sft\"`, `\"ppo\"`, `\"eval\"` | required |") != NULL);
    qp_str_fini(&out);
}

/* Rank 0 reads; everybody has the same deck or the same error. */
static void test_reading_files(qp_comm_t *comm)
{
    char folder[256] = "";
    if (qp_comm_rank(comm) == 0) {
        snprintf(folder, sizeof folder, "%s", qp_test_folder());
        CHECK(chdir(folder) == 0); /* the others must not find the files */
        CHECK_OK(qp_file_write("good.cfg", SFT LR, strlen(SFT LR)));
        CHECK_OK(qp_file_write("a[1]*.cfg", "", 0));
        CHECK_OK(qp_file_write("empty.cfg", "", 0));
        CHECK(mkfifo("pipe.cfg", 0600) == 0);
        CHECK_OK(qp_file_write("binary.cfg", "a\0b", 3));
        CHECK(symlink("nowhere", "link.cfg") == 0);
    }
    qp_comm_barrier(comm);
    qp_deck_t *deck = NULL;
    /* A file is meant, not a pattern: a name with characters of patterns is a name. */
    const char *const present[] = {"optim.file=a[1]*.cfg"}, *const absent[] = {
                                                                "optim.file=goo*.cfg"};
    if (CHECK_OK(qp_deck_read(comm, "good.cfg", groups, 3, present, 1, &deck))) {
        config_t_ c;
        qp_deck_fill(deck, &optim, &c);
        CHECK(c.lr == 0.1);
    }
    qp_deck_destroy(&deck);
    CHECK_FAILS(qp_deck_read(comm, "good.cfg", groups, 3, absent, 1, &deck), QP_INPUT,
                "--set optim.file: no such file: goo*.cfg");
    static const char *const wrong[][2] = {
        {"optim.file=.", "optim.file: .: is a folder, expected a file"},
        {"optim.file=link.cfg", "optim.file: link.cfg: is a link to what is not there"},
        {"optim.file=good.cfg/x", "optim.file: good.cfg/x: Not a directory"},
        {"optim.folder=good.cfg", "optim.folder: good.cfg: is a file, expected a folder"},
        {"optim.folder=pipe.cfg", "optim.folder: pipe.cfg: is a pipe, expected a folder"},
        {"optim.folder=none", "optim.folder: no such file: none"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_FAILS(qp_deck_read(comm, "good.cfg", groups, 3, wrong[i], 1, &deck), QP_INPUT,
                    wrong[i][1]);
    const char *const here[] = {"optim.folder=."};
    CHECK_OK(qp_deck_read(comm, "good.cfg", groups, 3, here, 1, &deck));
    qp_deck_destroy(&deck);
    const char *const broken[] = {"optim.file=\"good.cfg\\nx\""};
    CHECK_FAILS(qp_deck_read(comm, "good.cfg", groups, 3, broken, 1, &deck), QP_INPUT,
                "optim.file: the name \"good.cfg\\nx\" holds a control character");
    CHECK_FAILS(qp_deck_read(comm, "pipe.cfg", groups, 3, NULL, 0, &deck), QP_INPUT,
                "pipe.cfg: not a regular file, but a pipe");
    CHECK_FAILS(qp_deck_read(comm, "none.cfg", groups, 3, NULL, 0, &deck), QP_INPUT, "none.cfg");
    CHECK_FAILS(qp_deck_read(comm, "empty.cfg", groups, 3, NULL, 0, &deck), QP_INPUT,
                "empty.cfg: job.method: required key is missing");
    CHECK_FAILS(qp_deck_read(comm, "binary.cfg", groups, 3, NULL, 0, &deck), QP_INPUT,
                "binary.cfg: not a text file");
    if (qp_comm_rank(comm) == 0) {
        CHECK_OK(qp_deck_read(NULL, "good.cfg", groups, 3, NULL, 0, &deck));
        qp_deck_destroy(&deck);
    }
    CHECK(deck == NULL);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (CHECK_OK(qp_comm_create(&comm))) {
        if (qp_comm_rank(comm) == 0) {
            test_values_and_defaults();
            test_sets_override();
            test_mistakes();
            test_all_at_once();
            test_echo_reads_back_exactly();
            test_numbers_are_exact();
            test_hash_sees_what_must_not_change();
            test_documents();
        }
        test_reading_files(comm);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
