#include "base/program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "base/version.h"

bool qp_program_answers(const char *name, const char *usage, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            return true;
        }
        if (strcmp(argv[i], "--version") == 0) {
            printf("%s %s\n", name, qp_version());
            return true;
        }
    }
    return false;
}

qp_error_t qp_program_check_name(const char *argument)
{
    if (!qp_has_control(argument))
        return NULL;
    qp_str_t quoted = {0};
    qp_str_quote(&quoted, argument);
    qp_error_t error = QP_ERROR(QP_INPUT, "the argument %s holds a control character", quoted.data);
    qp_str_fini(&quoted);
    return error;
}

qp_error_t qp_program_integer(const char *option, const char *text, int64_t min, int64_t max,
                              int64_t *value)
{
    char *end;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    *value = number;
    if (end == text || *end != '\0' || errno != 0 || number < min || number > max)
        return QP_ERROR(QP_INPUT, "--%s \"%s\": expected an integer from %lld to %lld", option,
                        text, (long long)min, (long long)max);
    return NULL;
}

qp_error_t qp_program_number(const char *option, const char *text, double min, double max,
                             double *value)
{
    char *end;
    *value = strtod(text, &end);
    if (end == text || *end != '\0' || !(*value >= min && *value <= max))
        return QP_ERROR(QP_INPUT, "--%s \"%s\": expected a number from %g to %g", option, text, min,
                        max);
    return NULL;
}

/* What stands there instead of an option: none of that name, or one that takes no value. */
static qp_error_t no_option(const char *name, const struct option *options, const char *argument)
{
    enum { MAX_OPTION = 64 };
    const char *names[MAX_OPTION];
    int n = 0;
    for (; options[n].name != NULL && n < MAX_OPTION; n++)
        names[n] = options[n].name;
    char *word = qp_format("%.*s", (int)strcspn(argument, "="), argument);
    const char *bare = word + strspn(word, "-"), *nearest = qp_nearest(bare, names, n);
    qp_error_t error = nearest != NULL && strcmp(nearest, bare) == 0
                           ? QP_ERROR(QP_INPUT, "%s: it takes no value; see %s --help", word, name)
                           : QP_ERROR(QP_INPUT, "%s: no such option%s%s; see %s --help", word,
                                      nearest != NULL ? ", did you mean --" : "",
                                      nearest != NULL ? nearest : "", name);
    qp_free(word);
    return error;
}

qp_error_t qp_program_next(const char *name, const struct option *options, int argc, char **argv,
                           int *option)
{
    opterr = 0;
    *option = getopt_long(argc, argv, ":", options, NULL);
    if (*option == ':')
        return QP_ERROR(QP_INPUT, "%s: its value is missing; see %s --help", argv[optind - 1],
                        name);
    if (*option == '?')
        return no_option(name, options, argv[optind - 1]);
    return NULL;
}

qp_error_t qp_program_options(const char *name, const struct option *options, int argc, char **argv,
                              qp_error_t (*take)(void *owner, int option), void *owner)
{
    for (int i = 1; i < argc; i++)
        QP_TRY(qp_program_check_name(argv[i]));
    for (int option;;) {
        QP_TRY(qp_program_next(name, options, argc, argv, &option));
        if (option == -1)
            return NULL;
        QP_TRY(take(owner, option));
    }
}
