/* Where a run writes: what stands in the way is said before the work, in a dry run too. */
#include <sys/stat.h>

#include "base/mem.h"
#include "base/output.h"
#include "base/str.h"
#include "train/run/run_impl.h"

typedef enum { ALWAYS, TRAINS, EVALUATES, GENERATES } writer_t;

/* What a run's folder gets. */
static const struct {
    const char *name;
    writer_t writer;
    qp_error_t (*check)(const char *path);
} outputs[] = {
    {"quipu.log", ALWAYS, qp_output_check_file},
    {"used.cfg", ALWAYS, qp_output_check_file},
    {"metrics.csv", TRAINS, qp_output_check_file},
    {"samples.jsonl", TRAINS, qp_output_check_file},
    {"checkpoints", TRAINS, qp_output_check_folder},
    {"adapter", TRAINS, qp_output_check_folder},
    {"tensorboard", TRAINS, qp_output_check_folder},
    {"curves.svg", TRAINS, qp_output_check_file},
    {"eval.json", EVALUATES, qp_output_check_file},
    {"answers.jsonl", EVALUATES, qp_output_check_file},
    {"answers.jsonl", GENERATES, qp_output_check_file},
};

static bool writes(const qp_settings_t *s, writer_t writer)
{
    const int method = s->job.method;
    return writer == ALWAYS || (writer == TRAINS && qp_method_trains(method)) ||
           (writer == EVALUATES && method == QP_METHOD_EVAL) ||
           (writer == GENERATES && method == QP_METHOD_GENERATE && s->prompts.output == NULL);
}

qp_error_t qp_run_check_outputs(const qp_run_t *run)
{
    const qp_settings_t *s = run->settings;
    struct stat status;
    QP_TRY(qp_error_context(qp_output_check_folder(run->folder), "job.output"));
    if (s->job.method == QP_METHOD_GENERATE && s->prompts.output != NULL)
        QP_TRY(qp_error_context(qp_output_check_file(s->prompts.output), "prompts.output"));
    if (lstat(run->folder, &status) != 0)
        return NULL; /* a new folder: nothing is in the way */
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        if (!writes(s, outputs[i].writer))
            continue;
        char *path = qp_format("%s/%s", run->folder, outputs[i].name);
        qp_error_t error = outputs[i].check(path);
        qp_free(path);
        QP_TRY(error);
    }
    return NULL;
}
