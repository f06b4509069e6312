/* metrics.csv: header, empty cells, rows beyond the resumed step cut. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "train/metrics.h"
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
    test_json_lines_are_cut();
    return qp_test_end();
}
