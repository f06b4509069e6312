/* metrics.csv: header, empty cells, rows beyond the resumed step cut. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "train/report/metrics.h"
#include "testing.h"

static void check_file(const char *path, const char *expected)
{
    void *text = NULL;
    size_t n;
    if (!CHECK_OK(qp_file_read(path, &text, &n)))
        return;
    CHECK_MSG(strcmp(text, expected) == 0, "found \"%s\", expected \"%s\"", (char *)text, expected);
    qp_free(text);
}

static void write_rows(const char *path, int64_t step, int64_t end)
{
    qp_metrics_t metrics = {0};
    int column = qp_metrics_add(&metrics, "step"), loss = qp_metrics_add(&metrics, "loss");
    qp_metrics_add(&metrics, "eval_loss");
    CHECK_OK(qp_metrics_open(&metrics, path, step));
    for (int64_t i = step > 0 ? step + 1 : 1; i <= end; i++) {
        qp_metrics_set(&metrics, column, (double)i);
        qp_metrics_set(&metrics, loss, i == 2 ? NAN : 0.5 * (double)i);
        CHECK_OK(qp_metrics_write(&metrics));
    }
    qp_metrics_close(&metrics);
}

static void test_rows_are_cut(void)
{
    char *path = qp_format("%s/metrics.csv", qp_test_folder());
    write_rows(path, -1, 4);
    check_file(path, "step,loss,eval_loss\n1,0.5,\n2,,\n3,1.5,\n4,2,\n");
    write_rows(path, 2, 3);
    check_file(path, "step,loss,eval_loss\n1,0.5,\n2,,\n3,1.5,\n");
    write_rows(path, -1, 1);
    check_file(path, "step,loss,eval_loss\n1,0.5,\n");
    qp_free(path);
}

/* As when a version with more columns, or fewer, goes on with a run. */
static void test_other_columns_are_kept_aside(void)
{
    char *path = qp_format("%s/other.csv", qp_test_folder());
    char *aside = qp_format("%s.until-2", path);
    static const char *const old[] = {"step,loss\n1,0.5\n2,1\n",
                                      "step,loss,eval_loss,more\n1,0.5,,\n2,1,,\n",
                                      "step,loss,eval_los\n1,0.5,\n2,1,\n"};
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        CHECK_OK(qp_file_write(path, old[i], strlen(old[i])));
        write_rows(path, 2, 3);
        check_file(aside, old[i]);
        check_file(path, "step,loss,eval_loss\n3,1.5,\n");
    }
    qp_free(aside);
    qp_free(path);
}

/* A value belongs to its row: the next one has none there unless it is set again. */
static void test_values_do_not_stay(void)
{
    char *path = qp_format("%s/rows.csv", qp_test_folder());
    qp_metrics_t metrics = {0};
    const int step = qp_metrics_add(&metrics, "step");
    const int eval_loss = qp_metrics_add(&metrics, "eval_loss");
    CHECK_OK(qp_metrics_open(&metrics, path, -1));
    for (int i = 1; i <= 3; i++) {
        qp_metrics_set(&metrics, step, i);
        if (i == 1)
            qp_metrics_set(&metrics, eval_loss, 2.5);
        CHECK_OK(qp_metrics_write(&metrics));
    }
    qp_metrics_close(&metrics);
    check_file(path, "step,eval_loss\n1,2.5\n2,\n3,\n");
    qp_free(path);
}

static void test_json_lines_are_cut(void)
{
    char *path = qp_format("%s/samples.jsonl", qp_test_folder());
    const char *text =
        "{\"step\":0,\"prompt\":\"a\"}\n{\"step\":10,\"prompt\":\"a\"}\n{\"step\":20,\"pro";
    FILE *file = NULL;
    CHECK_OK(qp_file_write(path, text, strlen(text)));
    CHECK_OK(qp_lines_open(path, "\"step\":", 9, &file));
    fputs("{\"step\":10}\n", file);
    fclose(file);
    check_file(path, "{\"step\":0,\"prompt\":\"a\"}\n{\"step\":10}\n");
    qp_free(path);
}

int main(void)
{
    test_rows_are_cut();
    test_other_columns_are_kept_aside();
    test_values_do_not_stay();
    test_json_lines_are_cut();
    return qp_test_end();
}
