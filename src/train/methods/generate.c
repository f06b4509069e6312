#include "train/methods/generate.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

qp_error_t qp_method_generate(qp_run_t *run)
{
    const char *output = run->settings->prompts.output;
    char *path = output != NULL ? qp_strdup(output) : qp_format("%s/answers.jsonl", run->folder);
    double start = qp_time();
    qp_str_t lines = {0};
    qp_answer_count_t count = {0};
    qp_error_t error = qp_run_answer(run, -1, &lines, &count);
    double seconds = qp_time() - start;
    if (error == NULL) {
        if (qp_comm_rank(run->comm) == 0)
            error = qp_file_write(path, lines.data, lines.n);
        error = qp_comm_agree(run->comm, error);
    }
    if (error == NULL) {
        qp_log_info("%lld prompt tokens, %lld of them shared", (long long)count.n_prompt_token,
                    (long long)count.n_shared);
        qp_log_info("%lld answers, %lld tokens, %.1f s, %.1f tokens/s: %s",
                    (long long)count.n_answer, (long long)count.n_token, seconds,
                    (double)count.n_token / seconds, path);
    }
    qp_str_fini(&lines);
    qp_free(path);
    return error;
}
