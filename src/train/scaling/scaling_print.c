/* The plan as text of at most 100 columns. */
#include "base/mem.h"
#include "train/scaling/scaling.h"

static double giga(int64_t bytes)
{
    return (double)bytes / 1e9;
}

static double n_parameter(const qp_llama_config_t *config)
{
    qp_tensor_spec_t *spec;
    int64_t n;
    double sum = 0.0;
    qp_llama_tensors(config, &spec, &n);
    for (int64_t i = 0; i < n; i++)
        sum += (double)spec[i].n_row * (double)spec[i].n_col;
    qp_free(spec);
    return sum;
}

static void print_job(const qp_scaling_t *scaling, qp_str_t *out)
{
    const qp_settings_t *s = &scaling->settings;
    const qp_base_info_t *info = &scaling->run.given.info;
    const qp_scaling_data_t *d = &scaling->data;
    qp_str_printf(out, "%s of %s: %.2f 10^9 parameters, %s, LM head %s\n",
                  qp_method_name(s->job.method), s->base.file, n_parameter(&info->config) / 1e9,
                  qp_precision_name(info->kinds.linear), qp_precision_name(info->kinds.lm_head));
    qp_str_printf(out, "  adapter  r = %lld, %.2f 10^6 parameters\n", (long long)s->lora.r,
                  (double)scaling->run.size.n_param / 1e6);
    qp_str_printf(out, "  step     %lld rows, %lld in a micro-batch, %lld steps\n",
                  (long long)s->batch.global_sequences, (long long)s->batch.micro_sequences,
                  (long long)s->optim.steps);
    qp_str_printf(out, "  a row    %.1f tokens, %.1f of them read by the LM head (mean of %lld)\n",
                  d->n_token, d->n_picked, (long long)d->n_row);
    if (d->n_answer > 0.0)
        qp_str_printf(out,
                      "  answers  %.1f tokens to queries of %.1f; %lld updates of %lld "
                      "micro-batches\n",
                      d->n_answer, d->n_prompt, (long long)scaling->job.n_update,
                      (long long)scaling->job.n_leaf);
}

static void print_memory(const qp_scaling_t *scaling, qp_str_t *out)
{
    const qp_memory_plan_t *plan = &scaling->plan;
    const qp_machine_t *m = scaling->machine;
    qp_str_printf(out, "memory with %lld ranks on a node, %s\n",
                  (long long)scaling->layout.n_node_rank,
                  scaling->recompute == QP_RECOMPUTE_LAYER ? "layers computed again in backward"
                                                           : "activations of all layers kept");
    if (plan->has_device)
        qp_str_printf(out, "  device   %.1f of %.1f GB, what stands beside the run included\n",
                      giga(qp_memory_plan_device_bytes(plan)), giga(plan->device_free));
    qp_str_printf(out, "  node     %.1f of %.1f GB\n", giga(qp_memory_plan_node_bytes(plan)),
                  m->node.memory);
}

static void print_step(const qp_scaling_t *scaling, qp_str_t *out)
{
    const qp_times_t t = qp_job_times(scaling->machine, &scaling->layout, &scaling->job);
    qp_str_printf(out, "a step with %lld ranks: %.3g s\n", (long long)scaling->layout.n_rank,
                  t.step);
    if (scaling->job.generation.n_query > 0)
        qp_str_printf(out, "  answers %.3g s, passes over them %.3g s\n", t.generate, t.experience);
    qp_str_printf(out, "  micro-batches %.3g s, optimiser %.3g s, waiting for others %.3g s\n",
                  t.gradient, t.update, t.communication);
    qp_str_printf(out, "  beside it: a start %.3g s, a checkpoint %.3g s\n", t.load, t.checkpoint);
}

/* What a micro-batch that learns consists of. */
static void print_work(const qp_scaling_t *scaling, qp_str_t *out)
{
    static const char *const name[QP_N_WORK] = {
        [QP_WORK_INT8] = "int8",           [QP_WORK_FLOAT] = "float", [QP_WORK_ADAPTER] = "adapter",
        [QP_WORK_ATTENTION] = "attention", [QP_WORK_HEAD] = "head",   [QP_WORK_ROWS] = "rows"};
    const qp_work_t *leaf = &scaling->job.leaf;
    const qp_speed_t speed =
        qp_speed_of_rank(scaling->machine, scaling->job.fp32, scaling->layout.n_node_rank);
    qp_str_puts(out, "a micro-batch        10^9 operations       GB        s\n");
    for (int k = 0; k < QP_N_WORK; k++) {
        qp_work_t one = {0};
        one.ops[k] = leaf->ops[k];
        one.bytes[k] = leaf->bytes[k];
        if (one.bytes[k] > 0.0)
            qp_str_printf(out, "  %-12s %20.5g %10.4g %8.3g\n", name[k], one.ops[k] / 1e9,
                          one.bytes[k] / 1e9, qp_speed_seconds(&speed, &one));
    }
}

static void print_rows(const qp_scaling_table_t *table, qp_str_t *out)
{
    bool all_fit = true;
    qp_str_puts(out, "  nodes ranks  rows    s/step waiting  tokens/s effic.   start     hours "
                     "node hours GB/node GB/dev\n");
    for (int i = 0; i < table->n; i++) {
        const qp_scaling_row_t *r = &table->row[i];
        const double hours = r->times.run / 3600.0;
        const int64_t n_node = qp_layout_nodes(&r->layout);
        qp_str_printf(
            out, "%c %5lld %5lld %5lld %9.4g %6.1f%% %9.0f %6.3f %6.0f s %9.4g %10.5g %7.1f ",
            r->fits ? ' ' : '*', (long long)n_node, (long long)r->layout.n_rank,
            (long long)r->n_row, r->times.step, 100.0 * r->times.communication / r->times.step,
            r->tokens_per_second, r->efficiency, r->times.load, hours, hours * (double)n_node,
            giga(r->node_bytes));
        if (r->device_bytes > 0)
            qp_str_printf(out, "%6.1f\n", giga(r->device_bytes));
        else
            qp_str_puts(out, "     -\n");
        all_fit = all_fit && r->fits;
    }
    if (!all_fit)
        qp_str_puts(out, "  *: more memory than a node or a device has\n");
    if (table->end != NULL)
        qp_str_printf(out, "  ends here: %s\n", table->end);
}

void qp_scaling_print(const qp_scaling_t *scaling, qp_str_t *out)
{
    const qp_machine_t *m = scaling->machine;
    const bool command = scaling->settings.reward_model.command.n > 0;
    print_job(scaling, out);
    qp_str_printf(out, "on %s: %lld nodes of %lld processors (%s, %s), %lld ranks a node\n",
                  m->machine.name, (long long)m->machine.nodes, (long long)m->node.processors,
                  m->processor.kind == QP_PROCESSOR_CUDA ? "cuda" : "cpu",
                  scaling->job.fp32 ? "fp32" : "bf16", (long long)m->node.ranks);
    print_memory(scaling, out);
    print_work(scaling, out);
    print_step(scaling, out);
    qp_str_puts(out, "\nstrong scaling: the deck's step, shared out\n");
    print_rows(&scaling->strong, out);
    qp_str_printf(out, "\nweak scaling: %lld rows a rank, so that steps grow with the ranks\n",
                  (long long)scaling->rows_of_rank);
    print_rows(&scaling->weak, out);
    qp_str_printf(
        out,
        "\nNot in these times: evaluation, samples, reading data, waiting for ranks whose "
        "micro-batches\nare longer than the mean%s.\n",
        command ? ", reward_model.command" : "");
    if (m->processor.kind == QP_PROCESSOR_CUDA)
        qp_str_puts(out, "Shares of a GPU's peak (reached) were confirmed by no card.\n");
}
