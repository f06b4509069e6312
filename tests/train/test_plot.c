/* What is handed to gnuplot: which columns of which files; and what becomes of one that fails
 * before it has read all. A script in its place keeps what it is given. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "testing.h"
#include "train/report/plot.h"

static char *in_folder(const char *name)
{
    return qp_format("%s/%s", qp_test_folder(), name);
}

static void write_text(const char *path, const char *text)
{
    CHECK_OK(qp_file_write(path, text, strlen(text)));
}

/* gnuplot is from now on this script, in a folder of its own. */
static void set_gnuplot(const char *script)
{
    char *folder = in_folder("bin"), *path = in_folder("bin/gnuplot");
    char *search = qp_format("%s:/usr/bin:/bin", folder);
    mkdir(folder, 0700);
    write_text(path, script);
    CHECK(chmod(path, 0700) == 0);
    setenv("PATH", search, 1);
    qp_free(search);
    qp_free(path);
    qp_free(folder);
}

/* The script that gnuplot was given; the caller's (qp_free). */
static char *plotted(const char *const *metrics, int n)
{
    char *seen = in_folder("seen"), *curves = in_folder("curves.svg");
    char *keep = qp_format("#!/bin/sh\ncat >'%s'\necho '</svg>' >'%s.part'\n", seen, curves);
    void *text = NULL;
    size_t n_bytes;
    set_gnuplot(keep);
    CHECK_OK(qp_plot(metrics, n, curves));
    CHECK_OK(qp_file_read(seen, &text, &n_bytes));
    qp_free(keep);
    qp_free(curves);
    qp_free(seen);
    return text;
}

static void test_columns(void)
{
    char *one = in_folder("metrics.csv");
    write_text(one, "step,epoch,loss,eval_loss,grad_norm,accuracy\n"
                    "1,0.1,3.5,,1.5,\n2,0.2,3.25,nan,1.25,\n3,0.3,3.0,nan,1.0,\n");
    char *script = plotted((const char *const[]){one}, 1);
    char *loss = qp_format("'%s' using 1:(valid(3) ? $3 : NaN) with linespoints", one);
    char *norm = qp_format("'%s' using 1:(valid(5) ? $5 : NaN)", one);
    CHECK_MSG(strstr(script, loss) != NULL, "%s", script);
    CHECK_MSG(strstr(script, norm) != NULL, "%s", script);
    CHECK(strstr(script, "set title 'gradient norm'\nset logscale y\n") != NULL);
    /* No number in it: no curve, and no panel where there is no other. */
    CHECK(strstr(script, "valid(4)") == NULL && strstr(script, "valid(6)") == NULL);
    CHECK(strstr(script, "set title 'accuracy'") == NULL);
    CHECK(strstr(script, "layout 1,2") != NULL);
    qp_free(norm);
    qp_free(loss);
    qp_free(script);
    qp_free(one);
}

/* More text than a pipe holds, and nobody who reads it. */
static void test_gnuplot_that_ends_early(void)
{
    enum { N = 2000 };
    const char **metrics = QP_NEW("test", const char *, N);
    char *one = in_folder("metrics.csv"), *curves = in_folder("early.svg");
    write_text(one, "step,loss\n1,3.5\n");
    for (int i = 0; i < N; i++)
        metrics[i] = one;
    set_gnuplot("#!/bin/sh\nexit 1\n");
    CHECK_FAILS(qp_plot(metrics, N, curves), QP_IO, "early.svg: gnuplot failed");
    qp_free(curves);
    qp_free(one);
    qp_free(metrics);
}

/* gnuplot ends well, but the disk was full: there is no picture, whole or half. */
static void test_half_a_picture(void)
{
    char *metrics = in_folder("metrics.csv"), *curves = in_folder("half.svg");
    char *half = qp_format("#!/bin/sh\ncat >/dev/null\necho '<svg>' >'%s.part'\n", curves);
    write_text(metrics, "step,loss\n1,3.5\n");
    set_gnuplot(half);
    CHECK_FAILS(qp_plot((const char *const[]){metrics}, 1, curves), QP_IO,
                "half.svg: gnuplot could not write all of it");
    char *temporary = qp_format("%s.part", curves);
    CHECK(access(curves, F_OK) != 0 && access(temporary, F_OK) != 0);
    set_gnuplot("#!/bin/sh\ncat >/dev/null\n"); /* it could not even begin */
    CHECK_FAILS(qp_plot((const char *const[]){metrics}, 1, curves), QP_IO, "half.svg: gnuplot");
    qp_free(temporary);
    qp_free(half);
    qp_free(curves);
    qp_free(metrics);
}

int main(void)
{
    test_columns();
    test_half_a_picture();
    test_gnuplot_that_ends_early();
    return qp_test_end();
}
