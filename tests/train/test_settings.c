/* The assembled schema: every deck of input/, checks over several keys, one report. */
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "train/run/run.h"
#include "train/settings.h"
#include "testing.h"

static const char base_text[] = "job = { method = \"sft\"; name = \"x\"; };\n"
                                "base = { file = \"/dev/null\"; };\n"
                                "data = { train = [ \"/dev/null\" ]; };\n"
                                "optim = { steps = 10; };\n";

static qp_error_t read_text(const char *more, const char *const *sets, int n_set, qp_settings_t *s)
{
    char *path = qp_format("%s/deck.cfg", qp_test_folder());
    char *text = qp_format("%s%s", base_text, more);
    qp_error_t error = qp_file_write(path, text, strlen(text));
    if (error == NULL)
        error = qp_settings_read(NULL, path, sets, n_set, "quipu deck.cfg", s);
    qp_free(path);
    qp_free(text);
    return error;
}

/* What device.compute = "auto" is here. */
static int auto_compute(void)
{
    qp_device_config_t config = {.backend = QP_BACKEND_AUTO};
    const char *why;
    CHECK_OK(qp_device_resolve(&config, &why));
    return config.compute;
}

/* What "auto" stands for belongs to the run's identity, however it was said. */
static void test_auto_compute(void)
{
    qp_settings_t plain, word, name;
    if (!CHECK_OK(read_text("", NULL, 0, &plain)))
        return;
    CHECK(plain.device.compute == auto_compute());
    CHECK(strstr(plain.used.data, "# auto on this CPU") != NULL);
    const bool bf16 = plain.device.compute == QP_COMPUTE_BF16;
    CHECK(strstr(plain.fingerprint.data,
                 bf16 ? "device.compute = \"bf16\"" : "device.compute = \"fp32\"") != NULL);
    const char *const set_auto[] = {"device.compute=auto"};
    const char *const set_name[] = {bf16 ? "device.compute=bf16" : "device.compute=fp32"};
    const char *const set_other[] = {bf16 ? "device.compute=fp32" : "device.compute=bf16"};
    if (CHECK_OK(read_text("", set_auto, 1, &word))) {
        CHECK(word.deck_hash == plain.deck_hash);
        qp_settings_fini(&word);
    }
    if (CHECK_OK(read_text("", set_name, 1, &name))) {
        CHECK(name.deck_hash == plain.deck_hash);
        qp_settings_fini(&name);
    }
    if (CHECK_OK(read_text("", set_other, 1, &name))) {
        CHECK(name.deck_hash != plain.deck_hash && name.device.compute != plain.device.compute);
        qp_settings_fini(&name);
    }
    qp_settings_fini(&plain);
}

static void test_defaults_and_checks(void)
{
    qp_settings_t s;
    if (CHECK_OK(read_text("", NULL, 0, &s))) {
        CHECK(s.lora.r == 16 && s.batch.global_sequences == 32 && s.checkpoint.keep == 3);
        CHECK(s.checkpoint.walltime_seconds == -1.0);
        CHECK(strstr(s.used.data, "quipu deck.cfg") != NULL);
        qp_settings_fini(&s);
    }
    const char *const divide[] = {"batch.micro_sequences=5"};
    CHECK_FAILS(read_text("", divide, 1, &s), QP_INPUT, "5 does not divide global_sequences = 32");
    const char *const warmup[] = {"optim.warmup_steps=11"};
    CHECK_FAILS(read_text("", warmup, 1, &s), QP_INPUT, "11 is more than optim.steps = 10");
    const char *const shortest[] = {"generate.min_new_tokens=200"};
    CHECK_FAILS(read_text("", shortest, 1, &s), QP_INPUT, "200 is more than max_new_tokens = 128");
    const char *const name[] = {"job.name=a/b"};
    CHECK_FAILS(read_text("", name, 1, &s), QP_INPUT, "must be a folder's name");
    CHECK_FAILS(read_text("checkpoint = { walltime = \"soon\"; };\n", NULL, 0, &s), QP_INPUT,
                "\"soon\" is neither");
    static const char *const none[] = {"0", "0:00", "00:00:00", "0-0", "0-00:00:00", "0.0"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char *set = qp_format("checkpoint.walltime=%s", none[i]);
        const char *const sets[] = {set};
        CHECK_FAILS(read_text("", sets, 1, &s), QP_INPUT, "checkpoint.walltime: \"0");
        CHECK_FAILS(read_text("", sets, 1, &s), QP_INPUT, "\" must be longer than 0");
        qp_free(set);
    }
    const char *const no_margin[] = {"checkpoint.walltime_margin=0", "checkpoint.walltime=1:00:00"};
    if (CHECK_OK(read_text("", no_margin, 2, &s))) {
        CHECK(s.checkpoint.walltime_seconds == 3600.0);
        CHECK(s.checkpoint.walltime_margin_seconds == 0.0);
        qp_settings_fini(&s);
    }
    const char *const overfull[] = {"checkpoint.walltime=1:60:00"};
    CHECK_FAILS(read_text("", overfull, 1, &s), QP_INPUT, "\"1:60:00\" is neither");
    CHECK_FAILS(read_text("lora = { rr = 8; };\n", NULL, 0, &s), QP_INPUT, "deck.cfg:5");
}

/* A restart must not be refused for what may change. */
static void test_hash(void)
{
    qp_settings_t a, b, c;
    const char *const may[] = {"optim.steps=20", "log.every_steps=3", "checkpoint.keep=1"};
    const char *const must_not[] = {"optim.lr=0.5"};
    if (!CHECK_OK(read_text("", NULL, 0, &a)))
        return;
    if (CHECK_OK(read_text("", may, 3, &b))) {
        CHECK(a.deck_hash == b.deck_hash);
        qp_settings_fini(&b);
    }
    if (CHECK_OK(read_text("", must_not, 1, &c))) {
        CHECK(a.deck_hash != c.deck_hash);
        const qp_run_t run = {.settings = &c}; /* keys that older checkpoints may lack */
        const char *at_default = qp_run_describe(&run, 0).at_default;
        CHECK(strstr(at_default, " optim.beta1 ") != NULL &&
              strstr(at_default, " optim.lr ") == NULL);
        qp_settings_fini(&c);
    }
    qp_settings_fini(&a);
}

/* An adapter states its own shape; what the deck says stays, for the run to compare. */
static void test_adapter_to_start_from(void)
{
    qp_settings_t s;
    char *init = qp_format("lora.init=%s", qp_test_source("tests/golden/formats/adapter"));
    const char *const sets[] = {init, "lora.r=5"};
    if (CHECK_OK(read_text("", sets, 1, &s))) {
        CHECK(s.lora.r == 4 && s.lora.alpha == 6.0 && s.lora.use_rslora);
        CHECK(strstr(s.used.data, "# lora.init\n") != NULL);
        CHECK(strstr(s.fingerprint.data, "lora.r = 4\n") != NULL);
        qp_settings_fini(&s);
    }
    if (CHECK_OK(read_text("", sets, 2, &s))) {
        CHECK(s.lora.r == 5 && s.lora.alpha == 6.0);
        qp_settings_fini(&s);
    }
    const char *const nothing[] = {"lora.init=/dev/null"}, *const empty[] = {"lora.init=/dev"};
    CHECK_FAILS(read_text("", nothing, 1, &s), QP_INPUT,
                "lora.init: /dev/null: is a device, expected a folder");
    CHECK_FAILS(read_text("", empty, 1, &s), QP_INPUT, "/dev: is no PEFT adapter folder");
    qp_free(init);
}

static void test_deck_of_input(const char *path)
{
    /* The files a deck names are made by the user: anything that exists stands for them here. */
    static const char reward[] = "reward_model = { adapter = ";
    const char *sets[] = {"base.file=/dev/null", "lora.init=tests/golden/formats/adapter",
                          "reward_model.adapter=/dev"};
    void *text = NULL;
    size_t n_bytes;
    qp_settings_t s;
    if (!CHECK_OK(qp_file_read(path, &text, &n_bytes)))
        return;
    const int n_set = memmem(text, n_bytes, reward, strlen(reward)) != NULL ? 3 : 2;
    if (CHECK_OK(qp_settings_read(NULL, path, sets, n_set, "test", &s)))
        qp_settings_fini(&s);
    qp_free(text);
}

static void test_all_input_decks(void)
{
    int n_deck = 0;
    CHECK(chdir(qp_test_source("")) == 0); /* paths of a deck are relative to the working folder */
    DIR *input = opendir("input");
    for (struct dirent *folder; input != NULL && (folder = readdir(input)) != NULL;) {
        char *path = qp_format("input/%s", folder->d_name);
        DIR *content = folder->d_name[0] != '.' ? opendir(path) : NULL;
        for (struct dirent *file; content != NULL && (file = readdir(content)) != NULL;) {
            if (!qp_has_suffix(file->d_name, ".cfg") || strcmp(folder->d_name, "machines") == 0)
                continue; /* machines are no decks: tests/train/test_plan_for.sh */
            char *deck = qp_format("%s/%s", path, file->d_name);
            test_deck_of_input(deck);
            n_deck++;
            qp_free(deck);
        }
        if (content != NULL)
            closedir(content);
        qp_free(path);
    }
    if (input != NULL)
        closedir(input);
    CHECK_MSG(n_deck >= 12, "found %d decks in input/", n_deck);
}

int main(void)
{
    test_defaults_and_checks();
    test_auto_compute();
    test_hash();
    test_adapter_to_start_from();
    test_all_input_decks();
    return qp_test_end();
}
