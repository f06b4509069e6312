#include "train/report/csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool qp_csv_field(const char *line, int i, const char **start, size_t *n)
{
    for (;; line++, i--) {
        size_t length = strcspn(line, ",\r\n");
        if (i == 0) {
            *start = line;
            *n = length;
            return true;
        }
        line += length;
        if (*line != ',')
            return false;
    }
}

int qp_csv_column(const char *text, const char *name)
{
    const char *field;
    size_t n;
    for (int i = 0; qp_csv_field(text, i, &field, &n); i++)
        if (strlen(name) == n && strncmp(field, name, n) == 0)
            return i;
    return -1;
}

double qp_csv_number(const char *line, int column)
{
    const char *field;
    size_t n;
    if (column < 0 || !qp_csv_field(line, column, &field, &n) || n == 0)
        return NAN;
    return strtod(field, NULL); /* it ends at the comma */
}

const char *qp_csv_next(const char *line)
{
    const char *end = strchr(line, '\n');
    return end != NULL && strchr(end + 1, '\n') != NULL ? end + 1 : NULL;
}

int64_t qp_csv_count(const char *text, int column)
{
    int64_t count = 0;
    for (const char *line = qp_csv_next(text); line != NULL; line = qp_csv_next(line))
        count += isfinite(qp_csv_number(line, column));
    return count;
}
