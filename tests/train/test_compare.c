/* One policy against another: wins, and the difference query by query with Student's interval. */
#include <math.h>

#include "testing.h"
#include "train/methods/compare.h"

static void check_close(const char *what, double found, double expected)
{
    CHECK_MSG(fabs(found - expected) <= 5e-4 * fmax(1.0, fabs(expected)),
              "%s: found %.8g, expected %.8g", what, found, expected);
}

/* Quantiles of Student's t as printed in tables; the differences are 0, 1, 2, ... */
static void test_interval(void)
{
    static const struct {
        int n;
        double t;
    } known[] = {{2, 12.7062}, {3, 4.3027}, {7, 2.4469}, {8, 2.3646}, {11, 2.2281}, {26, 2.0595}};
    double a[26], b[26] = {0.0};
    for (int i = 0; i < 26; i++)
        a[i] = (double)i;
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        const double n = known[k].n, error = sqrt((n + 1.0) / 12.0);
        const qp_win_rate_t w = qp_win_rate(a, b, known[k].n, 1);
        check_close("difference", w.difference, (n - 1.0) / 2.0);
        check_close("its error", w.difference_error, error);
        check_close("low", (w.difference - w.difference_low) / error, known[k].t);
        check_close("high", (w.difference_high - w.difference) / error, known[k].t);
    }
}

/* Several answers to a query are one observation: their mean. */
static void test_draws_are_no_observations(void)
{
    const double a[] = {3.0, 1.0, 5.0, 3.0}, b[] = {1.0, 1.0, 0.0, 0.0};
    const qp_win_rate_t w = qp_win_rate(a, b, 2, 2);
    check_close("win rate", w.win_rate, 3.5 / 4.0);
    check_close("difference", w.difference, 2.5);
    check_close("its error", w.difference_error, 1.5);
    check_close("high", w.difference_high, 2.5 + 12.7062 * 1.5);
}

static void test_one_query_says_nothing(void)
{
    const double a = 2.0, b = 1.0;
    const qp_win_rate_t w = qp_win_rate(&a, &b, 1, 1);
    CHECK(w.difference == 1.0 && isinf(w.difference_low) && isinf(w.difference_high));
}

int main(void)
{
    test_interval();
    test_draws_are_no_observations();
    test_one_query_says_nothing();
    return qp_test_end();
}
