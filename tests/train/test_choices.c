/* Every word that a choice of the deck may be means what the code takes it for: a deck with it
 * gives the enumerator whose behaviour the tests of its module watch. tools/check-choices names a
 * word that stands in no test. */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "testing.h"
#include "train/ppo/ppo_math.h"
#include "train/settings.h"

/* The second part is for methods that train. */
static const char deck_text[] = "job = { name = \"choices\"; };\n"
                                "base = { file = \"/dev/null\"; };\n";
static const char more_text[] = "data = { train = [ \"/dev/null\" ]; };\n"
                                "optim = { steps = 10; };\n";

#define AT(field) offsetof(qp_settings_t, field)
static const struct {
    const char *set;
    size_t at; /* of the int in the settings */
    int value;
} row[] = {
    {"job.method=sft", AT(job.method), QP_METHOD_SFT},
    {"job.method=reward", AT(job.method), QP_METHOD_REWARD},
    {"job.method=dpo", AT(job.method), QP_METHOD_DPO},
    {"job.method=ppo", AT(job.method), QP_METHOD_PPO},
    {"job.method=eval", AT(job.method), QP_METHOD_EVAL},
    {"job.method=generate", AT(job.method), QP_METHOD_GENERATE},
    {"job.restart=auto", AT(job.restart), QP_RESTART_AUTO},
    {"job.restart=never", AT(job.restart), QP_RESTART_NEVER},
    {"job.restart=require", AT(job.restart), QP_RESTART_REQUIRE},
    {"base.activation=int8", AT(base.activation), QP_PRODUCT_INT8},
    {"base.activation=bf16", AT(base.activation), QP_PRODUCT_BF16},
    {"base.gradient=int8", AT(base.gradient), QP_PRODUCT_INT8},
    {"base.gradient=bf16", AT(base.gradient), QP_PRODUCT_BF16},
    {"data.packing=isolated", AT(data.packing), QP_PACK_ISOLATED},
    {"data.packing=contaminated", AT(data.packing), QP_PACK_CONTAMINATED},
    {"data.packing=none", AT(data.packing), QP_PACK_NONE},
    {"data.overlong=auto", AT(data.overlong), QP_OVERLONG_AUTO},
    {"data.overlong=cut", AT(data.overlong), QP_OVERLONG_CUT},
    {"data.overlong=drop", AT(data.overlong), QP_OVERLONG_DROP},
    {"optim.schedule=constant", AT(optim.schedule), QP_SCHEDULE_CONSTANT},
    {"optim.schedule=linear", AT(optim.schedule), QP_SCHEDULE_LINEAR},
    {"optim.schedule=cosine", AT(optim.schedule), QP_SCHEDULE_COSINE},
#if !defined QUIPU_HAS_CUDA || defined CUDA_ON_CPU /* else it depends on the machine */
    {"device.backend=auto", AT(device.backend), QP_BACKEND_CPU},
#endif
    {"device.backend=cpu", AT(device.backend), QP_BACKEND_CPU},
    {"device.backend=cuda", AT(device.backend), QP_BACKEND_CUDA},
    {"device.compute=bf16", AT(device.compute), QP_COMPUTE_BF16},
    {"device.compute=fp32", AT(device.compute), QP_COMPUTE_FP32},
    {"device.allreduce=auto", AT(device.allreduce), QP_ALLREDUCE_AUTO},
    {"device.allreduce=mpi", AT(device.allreduce), QP_ALLREDUCE_MPI},
    {"device.allreduce=tree", AT(device.allreduce), QP_ALLREDUCE_TREE},
    {"device.allreduce=nccl", AT(device.allreduce), QP_ALLREDUCE_NCCL},
    {"device.recompute=auto", AT(device.recompute), QP_RECOMPUTE_AUTO},
    {"device.recompute=none", AT(device.recompute), QP_RECOMPUTE_NONE},
    {"device.recompute=layer", AT(device.recompute), QP_RECOMPUTE_LAYER},
    {"generate.kv_cache_dtype=auto", AT(generate.kv_cache_dtype), QP_KV_CACHE_AUTO},
    {"generate.kv_cache_dtype=int8", AT(generate.kv_cache_dtype), QP_KV_CACHE_INT8},
    {"dpo.loss_type=sigmoid", AT(dpo.loss_type), QP_DPO_SIGMOID},
    {"dpo.loss_type=hinge", AT(dpo.loss_type), QP_DPO_HINGE},
    {"dpo.loss_type=ipo", AT(dpo.loss_type), QP_DPO_IPO},
    {"ppo.preset=standard", AT(ppo.preset), QP_PPO_STANDARD},
    {"ppo.value_head_init=zeros", AT(ppo.value_head_init), QP_HEAD_ZEROS},
    {"ppo.value_head_init=linear", AT(ppo.value_head_init), QP_HEAD_LINEAR},
    {"ppo.kl_penalty=kl", AT(ppo.kl_penalty), QP_KL_K1},
    {"ppo.kl_penalty=abs", AT(ppo.kl_penalty), QP_KL_ABS},
    {"ppo.kl_penalty=mse", AT(ppo.kl_penalty), QP_KL_MSE},
    {"ppo.kl_penalty=k3", AT(ppo.kl_penalty), QP_KL_K3},
    {"ppo.kl_penalty=full", AT(ppo.kl_penalty), QP_KL_FULL},
    {"ppo.kl_control=adaptive", AT(ppo.kl_control), QP_KL_ADAPTIVE},
    {"ppo.kl_control=linear", AT(ppo.kl_control), QP_KL_LINEAR},
    {"ppo.kl_control=fixed", AT(ppo.kl_control), QP_KL_FIXED},
    {"ppo.whiten_advantages=batch", AT(ppo.whiten_advantages), QP_WHITEN_BATCH},
    {"ppo.whiten_advantages=mini-batch", AT(ppo.whiten_advantages), QP_WHITEN_MINI_BATCH},
    {"ppo.whiten_advantages=sequence", AT(ppo.whiten_advantages), QP_WHITEN_SEQUENCE},
    {"log.level=error", AT(log.level), QP_LOG_ERROR},
    {"log.level=warn", AT(log.level), QP_LOG_WARN},
    {"log.level=info", AT(log.level), QP_LOG_INFO},
    {"log.level=stat", AT(log.level), QP_LOG_STAT},
    {"log.level=debug", AT(log.level), QP_LOG_DEBUG},
};

/* What a method wants besides, and data that its shards may have. */
static const struct {
    const char *prefix, *set[3];
} wanted[] = {
    {"job.method=ppo", {"reward_model.command=judge"}},
    {"job.method=generate", {"prompts.input=/dev/null"}},
    {"dpo.", {"job.method=dpo"}},
    {"ppo.", {"job.method=ppo", "reward_model.command=judge"}},
    {"", {"job.method=sft"}},
};
enum { N_WANTED = sizeof wanted / sizeof wanted[0] };

static const char *path_of_deck(bool trains)
{
    static char path[300];
    char *text = qp_format("%s%s", deck_text, trains ? more_text : "");
    snprintf(path, sizeof path, "%s/deck.cfg", qp_test_folder());
    CHECK_OK(qp_file_write(path, text, strlen(text)));
    qp_free(text);
    return path;
}

static void test_words(void)
{
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const char *sets[4] = {row[i].set};
        int n_set = 1, w = 0;
        qp_settings_t s;
        while (!qp_has_prefix(row[i].set, wanted[w].prefix))
            w++;
        const bool names_method = qp_has_prefix(row[i].set, "job.method=");
        for (int k = 0; k < 3 && wanted[w].set[k] != NULL; k++)
            if (!names_method || !qp_has_prefix(wanted[w].set[k], "job.method="))
                sets[n_set++] = wanted[w].set[k];
        const bool trains = row[i].at != AT(job.method) ||
                            (row[i].value != QP_METHOD_GENERATE && row[i].value != QP_METHOD_EVAL);
        if (row[i].at == AT(job.method) && row[i].value == QP_METHOD_EVAL)
            sets[n_set++] = "data.eval=/dev/null";
        if (!CHECK_OK(qp_settings_read(NULL, path_of_deck(trains), sets, n_set, "test", &s)))
            continue;
        const int found = *(const int *)((const char *)&s + row[i].at);
        CHECK_MSG(found == row[i].value, "%s is %d, expected %d", row[i].set, found, row[i].value);
        qp_settings_fini(&s);
    }
}

/* The preset gives what StackLLaMA's scripts had, and nothing to what the deck says itself. */
static void test_preset(void)
{
    const char *const sets[] = {"ppo.preset=trl-0.4.2", "job.method=ppo",
                                "reward_model.command=judge", "ppo.target_kl=0.25",
                                "batch.global_sequences=64"};
    qp_settings_t s;
    if (!CHECK_OK(qp_settings_read(NULL, path_of_deck(true), sets, 5, "test", &s)))
        return;
    const qp_ppo_config_t *p = &s.ppo;
    CHECK(p->preset == QP_PPO_TRL_0_4_2 && p->value_head_init == QP_HEAD_LINEAR);
    CHECK(p->whiten_advantages == QP_WHITEN_SEQUENCE && p->dropped_accumulation == 8);
    CHECK(p->dropout && p->summary_dropout_prob == 0.1 && !p->stop_at_eos && p->early_stopping);
    CHECK(p->output_min_length == 32 && p->output_max_length == 127 && p->ratio_threshold == 0.0);
    CHECK(s.optim.lr == 1.4e-5 && s.optim.schedule == QP_SCHEDULE_CONSTANT &&
          s.optim.max_grad_norm == 0.0);
    CHECK(p->target_kl == 0.25); /* the deck's own */
    qp_settings_fini(&s);
}

int main(void)
{
    test_words();
    test_preset();
    return qp_test_end();
}
