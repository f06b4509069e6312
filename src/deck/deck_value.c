/* Values: from libconfig settings or text, checked against their key, and back to exact text. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "deck/deck_impl.h"

const char *qp_deck_item(const char *list, int index, size_t *length)
{
    for (; list != NULL && index > 0; index--) {
        list = strchr(list, '|');
        list = list != NULL ? list + 1 : NULL;
    }
    *length = list != NULL ? strcspn(list, "|") : 0;
    return list;
}

int qp_deck_find_item(const char *list, const char *word, size_t length)
{
    size_t n;
    const char *item;
    for (int i = 0; (item = qp_deck_item(list, i, &n)) != NULL; i++)
        if (n == length && memcmp(item, word, n) == 0)
            return i;
    return -1;
}

/* Shortest decimal form that reads back to the same bits, and that libconfig takes for a float. */
static void print_float(double x, qp_str_t *out)
{
    char text[40];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, x);
        if (strtod(text, NULL) == x)
            break;
    }
    qp_str_puts(out, text);
    if (strpbrk(text, ".e") == NULL)
        qp_str_puts(out, ".0");
}

void qp_deck_value_print(const qp_deck_value_t *value, qp_str_t *out)
{
    size_t length;
    const char *choice;
    switch (value->key->type) {
    case QP_DECK_BOOL:
        qp_str_puts(out, value->is.b ? "true" : "false");
        break;
    case QP_DECK_INT:
        qp_str_printf(out, "%lld", (long long)value->is.i);
        break;
    case QP_DECK_FLOAT:
        print_float(value->is.f, out);
        break;
    case QP_DECK_STRING:
        qp_str_quote(out, value->is.s);
        break;
    case QP_DECK_CHOICE:
        choice = qp_deck_item(value->key->choices, (int)value->is.i, &length);
        qp_str_printf(out, "\"%.*s\"", (int)length, choice);
        break;
    case QP_DECK_STRINGS:
        for (int i = 0; i < value->is.strings.n; i++) {
            qp_str_puts(out, i == 0 ? "[ " : ", ");
            qp_str_quote(out, value->is.strings.item[i]);
        }
        qp_str_puts(out, " ]");
        break;
    case QP_DECK_INTS:
        for (int i = 0; i < value->is.ints.n; i++)
            qp_str_printf(out, "%s%lld", i == 0 ? "[ " : ", ", (long long)value->is.ints.item[i]);
        qp_str_puts(out, " ]");
        break;
    }
}

void qp_deck_value_fini(qp_deck_value_t *value)
{
    if (value->source == QP_DECK_UNSET)
        return;
    if (value->key->type == QP_DECK_STRING)
        qp_free(value->is.s);
    if (value->key->type == QP_DECK_STRINGS) {
        for (int i = 0; i < value->is.strings.n; i++)
            qp_free(value->is.strings.item[i]);
        qp_free(value->is.strings.item);
    }
    if (value->key->type == QP_DECK_INTS)
        qp_free(value->is.ints.item);
    value->source = QP_DECK_UNSET;
}

/* --- checks ----------------------------------------------------------------------------------- */

static bool is_integer(const config_setting_t *s)
{
    int type = config_setting_type(s);
    return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

static bool is_string(const config_setting_t *s)
{
    return config_setting_type(s) == CONFIG_TYPE_STRING;
}

/* What stands in the deck, for "found ...". */
static void describe(const config_setting_t *s, qp_str_t *out)
{
    switch (config_setting_type(s)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        qp_str_printf(out, "%lld", config_setting_get_int64(s));
        break;
    case CONFIG_TYPE_FLOAT:
        print_float(config_setting_get_float(s), out);
        break;
    case CONFIG_TYPE_BOOL:
        qp_str_puts(out, config_setting_get_bool(s) ? "true" : "false");
        break;
    case CONFIG_TYPE_STRING:
        qp_str_quote(out, config_setting_get_string(s));
        break;
    case CONFIG_TYPE_GROUP:
        qp_str_puts(out, "a group");
        break;
    default:
        qp_str_puts(out, config_setting_length(s) == 0 ? "an empty list" : "a list");
    }
}

static char *expected(const char *what, const config_setting_t *found)
{
    qp_str_t text = {0};
    describe(found, &text);
    char *message = qp_format("expected %s, found %s", what, text.data);
    qp_str_fini(&text);
    return message;
}

/* Bounds of the key; NULL if \a x keeps them. */
static char *check_range(const qp_deck_key_t *key, double x)
{
    bool unbounded = key->min == 0.0 && key->max == 0.0;
    if (isfinite(x) && (unbounded || (x >= key->min && x <= key->max)))
        return NULL;
    if (!isfinite(x))
        return qp_format("not a finite number");
    return qp_format("%.15g is out of range: %.15g to %.15g", x, key->min, key->max);
}

static char *take_choice(qp_deck_value_t *value, const config_setting_t *s)
{
    const char *choices = value->key->choices;
    const char *word = is_string(s) ? config_setting_get_string(s) : NULL;
    int index = word != NULL ? qp_deck_find_item(choices, word, strlen(word)) : -1;
    if (index < 0) {
        char *what = qp_format("one of %s", choices);
        char *message = expected(what, s);
        qp_free(what);
        return message;
    }
    value->is.i = index;
    return NULL;
}

static char *take_int(qp_deck_value_t *value, const config_setting_t *s)
{
    if (!is_integer(s))
        return expected("an integer", s);
    value->is.i = config_setting_get_int64(s);
    return check_range(value->key, (double)value->is.i);
}

static char *take_float(qp_deck_value_t *value, const config_setting_t *s)
{
    if (is_integer(s))
        value->is.f = (double)config_setting_get_int64(s);
    else if (config_setting_type(s) == CONFIG_TYPE_FLOAT)
        value->is.f = config_setting_get_float(s);
    else
        return expected("a number", s);
    return check_range(value->key, value->is.f);
}

static char *take_bool(qp_deck_value_t *value, const config_setting_t *s)
{
    if (config_setting_type(s) != CONFIG_TYPE_BOOL)
        return expected("true or false", s);
    value->is.b = config_setting_get_bool(s) != 0;
    return NULL;
}

/* A name of a file or folder: NULL, or what is wrong with it. */
static char *check_name(const char *name)
{
    if (!qp_has_control(name))
        return NULL;
    qp_str_t quoted = {0};
    qp_str_quote(&quoted, name);
    char *message = qp_format("the name %s holds a control character", quoted.data);
    qp_str_fini(&quoted);
    return message;
}

static char *check_names(const qp_deck_value_t *value)
{
    if (!(value->key->flags & (QP_DECK_NAME | QP_DECK_PATH)))
        return NULL;
    if (value->key->type == QP_DECK_STRING)
        return check_name(value->is.s);
    char *problem = NULL;
    for (int i = 0; i < value->is.strings.n && problem == NULL; i++)
        problem = check_name(value->is.strings.item[i]);
    return problem;
}

static char *take_string(qp_deck_value_t *value, const config_setting_t *s)
{
    if (!is_string(s))
        return expected("a string in quotes", s);
    value->is.s = qp_strdup(config_setting_get_string(s));
    return NULL;
}

/* Elements of a list, or the lone value as a list of one; 0 if it is empty or of another type. */
static int n_element(const config_setting_t *s, bool (*accepts)(const config_setting_t *))
{
    if (accepts(s))
        return 1;
    if (!config_setting_is_array(s) && !config_setting_is_list(s))
        return 0;
    int n = config_setting_length(s);
    for (int i = 0; i < n; i++)
        if (!accepts(config_setting_get_elem(s, (unsigned)i)))
            return 0;
    return n;
}

static const config_setting_t *element(const config_setting_t *s, int i)
{
    return config_setting_is_aggregate(s) ? config_setting_get_elem(s, (unsigned)i) : s;
}

static char *take_strings(qp_deck_value_t *value, const config_setting_t *s)
{
    int n = n_element(s, is_string);
    if (n == 0)
        return expected("a list of strings such as [ \"a\", \"b\" ]", s);
    value->is.strings.n = n;
    value->is.strings.item = QP_NEW("deck", char *, n);
    for (int i = 0; i < n; i++)
        value->is.strings.item[i] = qp_strdup(config_setting_get_string(element(s, i)));
    return NULL;
}

static char *take_ints(qp_deck_value_t *value, const config_setting_t *s)
{
    int n = n_element(s, is_integer);
    if (n == 0)
        return expected("a list of integers such as [ 1, 2 ]", s);
    for (int i = 0; i < n; i++) {
        char *problem = check_range(value->key, (double)config_setting_get_int64(element(s, i)));
        if (problem != NULL)
            return problem;
    }
    value->is.ints.n = n;
    value->is.ints.item = QP_NEW("deck", int64_t, n);
    for (int i = 0; i < n; i++)
        value->is.ints.item[i] = config_setting_get_int64(element(s, i));
    return NULL;
}

char *qp_deck_value_take(qp_deck_value_t *value, const config_setting_t *setting)
{
    static char *(*const take[])(qp_deck_value_t *, const config_setting_t *) = {
        [QP_DECK_BOOL] = take_bool,     [QP_DECK_INT] = take_int,
        [QP_DECK_FLOAT] = take_float,   [QP_DECK_STRING] = take_string,
        [QP_DECK_CHOICE] = take_choice, [QP_DECK_STRINGS] = take_strings,
        [QP_DECK_INTS] = take_ints,
    };
    value->named = true;
    qp_deck_value_t taken = *value;
    char *problem = take[value->key->type](&taken, setting);
    if (problem != NULL)
        return problem;
    taken.source = QP_DECK_FILE;
    problem = check_names(&taken);
    if (problem != NULL) {
        qp_deck_value_fini(&taken);
        return problem;
    }
    qp_deck_value_fini(value);
    *value = taken;
    value->line = (int)config_setting_source_line(setting);
    return NULL;
}

/* Whether text for this key is deck text already, or a bare word to be quoted. */
static bool is_deck_text(const qp_deck_key_t *key, const char *text)
{
    if (key->type == QP_DECK_STRING || key->type == QP_DECK_CHOICE)
        return text[0] == '"';
    if (key->type == QP_DECK_STRINGS)
        return strchr("\"[(", text[0]) != NULL; /* the empty text too */
    return true;
}

char *qp_deck_value_parse(qp_deck_value_t *value, const char *text)
{
    qp_str_t snippet = {0}, prepared = {0}, problems = {0};
    while (isspace((unsigned char)*text))
        text++;
    qp_str_puts(&snippet, "value = ");
    if (is_deck_text(value->key, text))
        qp_str_puts(&snippet, text);
    else
        qp_str_quote(&snippet, text);
    qp_str_putc(&snippet, ';');
    qp_deck_scan("", snippet.data, &prepared, &problems);
    config_t config;
    config_init(&config);
    char *problem;
    const config_setting_t *root;
    if (problems.n > 0)
        problem = qp_format("%s is no value a deck can hold", text);
    else if (config_read_string(&config, prepared.data) != CONFIG_TRUE ||
             config_setting_length(root = config_root_setting(&config)) != 1)
        problem = qp_format("cannot read \"%s\" as a value", text);
    else
        problem = qp_deck_value_take(value, config_setting_get_elem(root, 0));
    config_destroy(&config);
    qp_str_fini(&snippet);
    qp_str_fini(&prepared);
    qp_str_fini(&problems);
    return problem;
}
