/* The model behind --plan-for: operations counted by hand for LLaMA-7B, rooflines and exchanges
 * with round numbers, their limits, and files of machines that are refused. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "testing.h"
#include "train/scaling/times.h"

/* LLaMA-7B; 202,375,168 weights in the linears of a layer. */
static const qp_llama_config_t LLAMA_7B = {.n_layer = 32,
                                           .d_model = 4096,
                                           .n_head = 32,
                                           .n_kv_head = 32,
                                           .head_dim = 128,
                                           .d_ff = 11008,
                                           .n_vocab = 32000};
static const qp_lora_config_t Q_AND_V = {.r = 16,
                                         .target = {[QP_Q_PROJ] = true, [QP_V_PROJ] = true}};

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

static qp_work_model_t model_7b(void)
{
    return (qp_work_model_t){.config = &LLAMA_7B,
                             .lora = &Q_AND_V,
                             .forward = QP_WORK_INT8,
                             .backward = QP_WORK_INT8,
                             .head = QP_WORK_HEAD,
                             .weight_bytes = 1.0,
                             .head_bytes = 2.0,
                             .real_bytes = 2.0,
                             .kv_bytes = 2.0,
                             .attention_backward = 5.0};
}

/* One sequence of 1,000 tokens: 500,500 pairs. */
static void test_passes(void)
{
    const qp_work_batch_t batch = {.n_token = 1000.0, .n_pair = 500500.0, .n_picked = 1000.0};
    qp_work_model_t model = model_7b();
    const qp_work_t forward = qp_work_forward(&model, &batch);
    CHECK(near(forward.ops[QP_WORK_INT8], 12952010752000.0));    /* 2 1000 32 202375168 */
    CHECK(near(forward.ops[QP_WORK_ATTENTION], 262406144000.0)); /* 4 4096 500500 32 */
    CHECK(near(forward.ops[QP_WORK_ADAPTER], 16777216000.0));    /* 2 1000 16 8192, 2 targets, 32 */
    CHECK(forward.ops[QP_WORK_FLOAT] == 0.0 && forward.ops[QP_WORK_HEAD] == 0.0);
    CHECK(forward.bytes[QP_WORK_INT8] > 6476005376.0); /* each weight once, and rows */
    const qp_work_t backward = qp_work_backward(&model, &batch);
    /* all of them but the input of layer 0's q, k, v: 2 1000 4096 12288 less */
    CHECK(near(backward.ops[QP_WORK_INT8], 12851347456000.0));
    CHECK(near(backward.ops[QP_WORK_ATTENTION], 656015360000.0)); /* 10 4096 500500 32 */
    /* 2 1000 16 4096 (3 + 2), 2 targets, 32 layers; in layer 0 one product of each target less */
    CHECK(near(backward.ops[QP_WORK_ADAPTER], 41680896000.0));
    model.recompute = true; /* 31 layers again, without down_proj: 157286400 weights */
    const qp_work_t again = qp_work_backward(&model, &batch);
    CHECK(near(again.ops[QP_WORK_INT8] - backward.ops[QP_WORK_INT8], 9751756800000.0));
    CHECK(near(again.ops[QP_WORK_ATTENTION] - backward.ops[QP_WORK_ATTENTION], 254205952000.0));
    const qp_work_t said = qp_work_head(&model, 1000.0, false);
    const qp_work_t learnt = qp_work_head(&model, 1000.0, true);
    CHECK(near(said.ops[QP_WORK_HEAD], 262144000000.0)); /* 2 1000 32000 4096 */
    CHECK(near(learnt.ops[QP_WORK_HEAD], 524288000000.0));
}

/* What is of other types goes to other classes; without targets nothing is an adapter's. */
static void test_classes(void)
{
    const qp_work_batch_t batch = {.n_token = 10.0, .n_pair = 55.0};
    qp_work_model_t model = model_7b();
    model.lora = NULL;
    model.forward = model.backward = QP_WORK_FLOAT;
    const qp_work_t work = qp_work_forward(&model, &batch);
    CHECK(near(work.ops[QP_WORK_FLOAT], 129520107520.0) && work.ops[QP_WORK_INT8] == 0.0);
    CHECK(work.ops[QP_WORK_ADAPTER] == 0.0 && qp_work_head(&model, 0.0, true).n_op == 0.0);
    /* 4 sequences that have 100 tokens: 4 32 2 4096 100 2 bytes of cache, beside the rows */
    model = model_7b();
    const qp_work_batch_t row = {.n_token = 4.0, .n_pair = 400.0};
    const qp_work_t decode = qp_work_decode(&model, 4.0, 100.0);
    const qp_work_t plain = qp_work_forward(&model, &row);
    CHECK(near(decode.bytes[QP_WORK_ATTENTION] - plain.bytes[QP_WORK_ATTENTION], 209715200.0));
    CHECK(near(decode.ops[QP_WORK_HEAD], 1048576000.0));
}

/* 100 operations/s of each kind, 10 bytes/s; everything is reached. */
static qp_machine_t round_machine(void)
{
    qp_machine_t m = {.machine = {"round", 4},
                      .node = {.processors = 2, .memory = 1.0, .latency = 1e6, .link = 1e-9},
                      .processor = {.cores = 1,
                                    .int8 = 100e-12,
                                    .bf16 = 100e-12,
                                    .fp32 = 50e-12,
                                    .bandwidth = 10e-9},
                      .network = {.latency = 2e6, .bandwidth = 4e-9, .message = 0.5e6},
                      .storage = {1e-9, 1e-9, 2e-9, 0.0},
                      .reached = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0}};
    qp_machine_complete(&m);
    return m;
}

static void test_speed(void)
{
    qp_machine_t m = round_machine();
    qp_speed_t speed = qp_speed_of_rank(&m, false, 2);
    qp_work_t work = {.n_op = 3.0};
    work.ops[QP_WORK_INT8] = 300.0; /* 3 s; its bytes take 1 s */
    work.bytes[QP_WORK_INT8] = 10.0;
    work.ops[QP_WORK_HEAD] = 100.0; /* 1 s; its bytes take 2 s */
    work.bytes[QP_WORK_HEAD] = 20.0;
    work.bytes[QP_WORK_ROWS] = 40.0;
    CHECK(near(qp_speed_seconds(&speed, &work), 3.0 + 2.0 + 4.0));
    speed.op = 0.5;
    CHECK(near(qp_speed_seconds(&speed, &work), 10.5));
    CHECK(near(qp_speed_of_rank(&m, true, 1).rate[QP_WORK_HEAD], 50.0)); /* fp32 */
    CHECK(near(qp_speed_of_rank(&m, true, 1).rate[QP_WORK_INT8], 100.0));
    const qp_speed_t shared = qp_speed_of_rank(&m, false, 8); /* 8 ranks on 2 processors */
    CHECK(near(shared.rate[QP_WORK_INT8], 25.0) && near(shared.weights, 2.5));
    m.node.bandwidth = 12e-9; /* which two share: 6 each, 10 for one alone */
    CHECK(near(qp_speed_of_rank(&m, false, 2).rows, 6.0));
    CHECK(near(qp_speed_of_rank(&m, false, 1).rows, 10.0));
}

static void test_exchanges(void)
{
    qp_machine_t m = round_machine();
    const qp_layout_t one = qp_layout(&m, 1), two = qp_layout(&m, 2), eight = qp_layout(&m, 8);
    const qp_speed_t speed = qp_speed_of_rank(&m, false, 2);
    CHECK(qp_layout_nodes(&one) == 1 && qp_layout_nodes(&two) == 1 && qp_layout_nodes(&eight) == 4);
    CHECK(qp_exchange_seconds(&m, &one, 1e9) == 0.0 && qp_agree_seconds(&m, &one) == 0.0);
    CHECK(qp_sum_seconds(&m, &one, &speed, 1e9, 10.0) == 0.0);
    /* in a node: latency 1, a message 0.5, half of 8 bytes at 1 byte/s */
    CHECK(near(qp_exchange_seconds(&m, &two, 8.0), 1.0 + 0.5 + 4.0));
    /* between nodes: latency 2, 7 messages, 2 ranks with 6/8 of 8 bytes each at 4 bytes/s */
    CHECK(near(qp_exchange_seconds(&m, &eight, 8.0), 2.0 + 3.5 + 3.0));
    CHECK(near(qp_agree_seconds(&m, &eight), 2.0 * 3.0 * 2.0));
    /* 20 numbers, 10 at a time: twice two exchanges without bytes, two of 80 bytes, 12 20 / 2 bytes
     * to add at 10 bytes/s */
    CHECK(near(qp_sum_seconds(&m, &two, &speed, 20.0, 10.0), 2.0 * (2.0 * 1.5 + 40.0) + 12.0));
    m.network = (qp_machine_network_t){0.0, 1e300, 0.0};
    m.node.link = 1e300;
    CHECK(qp_exchange_seconds(&m, &eight, 1e9) < 1e-9);
}

/* Sums that hide behind backward, and those that do not. */
static void test_overlap(void)
{
    const qp_machine_t m = round_machine();
    const qp_layout_t two = qp_layout(&m, 2);
    const qp_speed_t speed = qp_speed_of_rank(&m, false, 2);
    const qp_sums_t sums = {.n_segment = 4, .n_layer = 1.0, .n_head = 0.0, .chunk = 10.0};
    const double one = qp_sum_seconds(&m, &two, &speed, 1.0, 10.0);
    CHECK(near(qp_sums_exposed(&m, &two, &speed, &sums, 1000.0), one)); /* the last one alone */
    CHECK(near(qp_sums_exposed(&m, &two, &speed, &sums, 0.0), 4.0 * one));
    /* layers are done every 1/2 of a sum: the first at 1/2, four sums behind it end at 4.5 */
    CHECK(near(qp_sums_exposed(&m, &two, &speed, &sums, 2.0 * one), 2.5 * one));
    CHECK(qp_sums_exposed(&m, &(qp_layout_t){1, 1}, &speed, &sums, 0.0) == 0.0);
}

/* A job that computes for 3 s in a micro-batch. */
static qp_job_t round_job(void)
{
    qp_job_t job = {.n_leaf = 8,
                    .n_update = 2,
                    .n_value = 1,
                    .n_token = 64.0,
                    .load_bytes = 6.0,
                    .checkpoint_bytes = 5.0,
                    .n_step = 10,
                    .checkpoint_every = 4};
    job.leaf.ops[QP_WORK_INT8] = 300.0;
    job.leaf_backward.ops[QP_WORK_INT8] = 200.0;
    job.update.bytes[QP_WORK_ROWS] = 10.0;
    job.sums = (qp_sums_t){.n_segment = 2, .n_layer = 1.0, .chunk = 10.0};
    return job;
}

static void test_job(void)
{
    qp_machine_t m = round_machine();
    const qp_job_t job = round_job();
    const qp_layout_t one = qp_layout(&m, 1), eight = qp_layout(&m, 8);
    const qp_times_t alone = qp_job_times(&m, &one, &job);
    CHECK(near(alone.gradient, 48.0) && near(alone.update, 2.0) && alone.communication == 0.0);
    CHECK(near(alone.step, 50.0) && near(alone.load, 6.0) && near(alone.checkpoint, 5.0));
    CHECK(near(alone.run, 6.0 + 500.0 + 3.0 * 5.0)); /* after 4, 8 and 10 steps */
    const qp_times_t many = qp_job_times(&m, &eight, &job);
    CHECK(near(many.gradient, 6.0) && many.communication > 0.0);
    CHECK(near(many.load, 12.0)); /* 4 nodes at 2 bytes/s together */
    CHECK(near(many.checkpoint, 1.25));
    m.network = (qp_machine_network_t){0.0, 1e300, 0.0};
    m.node.link = 1e300;
    m.processor.bandwidth = m.node.bandwidth = 1e300;
    CHECK(near(qp_job_times(&m, &eight, &job).step, 48.0 / 8.0)); /* nothing but products */
    CHECK(qp_most_leaves(8, 3) == 3 && qp_most_leaves(8, 16) == 1 && qp_most_leaves(0, 4) == 0);
}

/* 5 queries, 2 at a time: three waves. */
static void test_generation(void)
{
    qp_machine_t m = round_machine();
    const qp_speed_t speed = qp_speed_of_rank(&m, false, 1);
    qp_job_t job = round_job();
    job.generation = (qp_generation_t){
        .model = model_7b(), .n_query = 5, .max_active = 2, .n_prompt = 10.0, .n_new = 6.0};
    double expected = 0.0;
    for (int wave = 0; wave < 3; wave++) {
        const double n = wave < 2 ? 2.0 : 1.0;
        const qp_work_batch_t prompts = {.n_token = 10.0 * n, .n_pair = 55.0 * n};
        const qp_work_t prefill = qp_work_forward(&job.generation.model, &prompts);
        const qp_work_t decode = qp_work_decode(&job.generation.model, n, 13.0);
        expected += qp_speed_seconds(&speed, &prefill) + 6.0 * qp_speed_seconds(&speed, &decode);
    }
    CHECK(near(qp_job_times(&m, &(qp_layout_t){1, 1}, &job).generate, expected));
}

/* --- files ------------------------------------------------------------------------------------ */

static const char GOOD[] = "machine = { name = \"m\"; nodes = 2; };\n"
                           "node = { processors = 4; memory = 100; link = 10.0; };\n"
                           "processor = { kind = \"cpu\"; cores = 8; int8 = 2.0; fp32 = 0.5; "
                           "bandwidth = 50.0; };\n"
                           "network = { bandwidth = 10.0; };\n"
                           "storage = { read = 1.0; write = 1.0; };\n";

static qp_error_t read_text(const char *text, const char *set, qp_machine_t *m)
{
    char *path = qp_format("%s/m.cfg", qp_test_folder());
    qp_error_t error = qp_file_write(path, text, strlen(text));
    if (error == NULL)
        error = qp_machine_read(path, &set, set != NULL, m);
    qp_free(path);
    return error;
}

static void test_files(void)
{
    qp_machine_t m;
    if (CHECK_OK(read_text(GOOD, "node.ranks=8", &m))) {
        CHECK(m.node.ranks == 8 && m.node.bandwidth == 200.0 && m.reached.int8 == 0.74);
        CHECK(m.reached.op == 0.0 && m.reached.wait == 70.0);
        char *lines = qp_machine_deck_lines(&m);
        CHECK(strcmp(lines, "device.backend=cpu\ndevice.compute=fp32\ndevice.threads=8\n") == 0);
        qp_free(lines);
        qp_machine_fini(&m);
    }
    const struct {
        const char *set, *says;
    } bad[] = {{"node.rank=8", "node.rank"},
               {"node.memory=-1", "node.memory"},
               {"processor.int8=\"fast\"", "processor.int8"},
               {"processor.kind=\"tpu\"", "processor.kind"},
               {"reached.int8=1.5", "reached.int8"},
               {"network.bandwidth=0", "network.bandwidth: several nodes need it"},
               {"processor.kind=\"cuda\"", "processor.memory: a GPU needs it"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_FAILS(read_text(GOOD, bad[i].set, &m), QP_INPUT, bad[i].says);
    CHECK_FAILS(read_text("machine = { name = \"m\"; };\n", NULL, &m), QP_INPUT, "machine.nodes");
    CHECK_FAILS(read_text("machine = { name = \"m\" nodes };\n", NULL, &m), QP_INPUT, "m.cfg:1");
    CHECK(qp_machine_takes("node.ranks=8") && qp_machine_takes("reached.int8=1"));
    CHECK(!qp_machine_takes("lora.r=8") && !qp_machine_takes("nod.ranks=8"));
}

int main(void)
{
    test_passes();
    test_classes();
    test_speed();
    test_exchanges();
    test_overlap();
    test_job();
    test_generation();
    test_files();
    return qp_test_end();
}
