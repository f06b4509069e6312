#include "base/duration.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_FIELD = 3 };

/* Digits, and a fraction where nothing follows; *text moves behind them. */
static bool take_number(const char **text, double *value)
{
    char *end = NULL;
    if (!isdigit((unsigned char)**text))
        return false;
    *value = (double)strtoull(*text, &end, 10);
    if (*end == '.' && isdigit((unsigned char)end[1])) {
        for (double digit = 0.1; isdigit((unsigned char)*++end); digit /= 10.0)
            *value += digit * (*end - '0');
        if (*end != '\0')
            return false;
    }
    *text = end;
    return true;
}

bool qp_duration_parse(const char *text, double *seconds)
{
    /* Without days the last field is seconds; behind them the first one is hours. */
    double field[MAX_FIELD], days = 0.0, unit;
    int n = 0;
    bool has_days = false;
    for (bool more = true; more;) {
        if (n == MAX_FIELD || !take_number(&text, &field[n++]))
            return false;
        more = *text == ':' || (*text == '-' && n == 1 && !has_days);
        if (*text == '-' && more) {
            days = field[--n];
            has_days = true;
        }
        text += more;
    }
    if (*text != '\0')
        return false;
    /* Behind a larger unit none is full: 1:60:00 is a slip, 90:00 is not. */
    for (int i = has_days ? 0 : 1; i < n; i++)
        if (field[i] >= (has_days && i == 0 ? 24.0 : 60.0))
            return false;
    unit = has_days ? 3600.0 : pow(60.0, n - 1);
    *seconds = 86400.0 * days;
    for (int i = 0; i < n; i++, unit /= 60.0)
        *seconds += unit * field[i];
    return true;
}
