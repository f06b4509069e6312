/* Hundreds of changed adapters (golden/make_adapters.py): each is refused by a message that names
 * what is wrong, or adds to every linear what PEFT adds. */
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "import/source.h"
#include "testing.h"

enum { MAX_TENSOR = 64, N_NAME = 160 };

static qp_llama_config_t model;
static char *folder; /* of the changed adapter */

static json_t *read_json(const char *path)
{
    void *text = NULL;
    size_t n = 0;
    json_t *root = NULL;
    CHECK_OK(qp_file_read(path, &text, &n));
    CHECK_OK(qp_json_parse_object(path, text, n, 0, &root));
    qp_free(text);
    return root;
}

static void write_config(const json_t *one)
{
    json_t *config = read_json(qp_test_source("tests/golden/formats/adapter/adapter_config.json"));
    const char *key;
    json_t *value;
    size_t i;
    json_array_foreach(json_object_get(one, "drop"), i, value)
    {
        json_object_del(config, json_string_value(value));
    }
    json_object_foreach(json_object_get(one, "set"), key, value)
    {
        json_object_del(config, key);
    }
    char *kept = json_dumps(config, 0), *path = qp_format("%s/adapter_config.json", folder);
    qp_str_t text = {0};
    qp_str_append(&text, kept, strlen(kept) - 1);
    json_object_foreach(json_object_get(one, "set"), key, value)
    {
        qp_str_printf(&text, ", \"%s\": %s", key, json_string_value(value));
    }
    qp_str_puts(&text, "}");
    CHECK_OK(qp_file_write(path, text.data, text.n));
    qp_str_fini(&text);
    qp_free(path);
    free(kept);
    json_decref(config);
}

/* --- tensors ---------------------------------------------------------------------------------- */

typedef struct {
    qp_tensor_t tensor[MAX_TENSOR];
    char name[MAX_TENSOR][N_NAME];
    void *owned[MAX_TENSOR]; /* data that is not the golden file's */
    int n;
} tensors_t;

static void put(tensors_t *t, int at, const char *name, qp_dtype_t dtype, const json_t *shape)
{
    qp_tensor_t *to = &t->tensor[at];
    snprintf(t->name[at], N_NAME, "%s", name);
    *to = (qp_tensor_t){
        .name = t->name[at], .dtype = dtype, .n_dim = (int)json_array_size(shape) - 2};
    for (int d = 0; d < to->n_dim; d++)
        to->dim[d] = (int64_t)json_integer_value(json_array_get(shape, (size_t)d + 2));
    to->n_bytes = qp_bytes(qp_tensor_n(to), qp_dtype_bytes(dtype));
    qp_free(t->owned[at]);
    to->data = t->owned[at] = qp_alloc("test", to->n_bytes);
}

static void add(tensors_t *t, const char *name, const json_t *change)
{
    int at = 0;
    while (at < t->n && strcmp(t->name[at], name) != 0)
        at++;
    QP_ASSERT(at < MAX_TENSOR);
    t->n = at == t->n ? at + 1 : t->n;
    put(t, at, name, QP_F32, change);
    float *data = t->owned[at];
    for (int64_t i = 0; i < qp_tensor_n(&t->tensor[at]); i++)
        data[i] = (float)((double)(i * 37 % 101 - 50) / 500.0);
}

static void drop(tensors_t *t, int at)
{
    qp_free(t->owned[at]);
    for (t->n--; at < t->n; at++) {
        t->tensor[at] = t->tensor[at + 1];
        t->owned[at] = t->owned[at + 1];
        memcpy(t->name[at], t->name[at + 1], N_NAME);
        t->tensor[at].name = t->name[at];
    }
    t->owned[t->n] = NULL;
}

static void cast(tensors_t *t, int at, const char *type)
{
    static const struct {
        const char *name;
        qp_dtype_t dtype;
    } types[] = {{"F16", QP_F16}, {"BF16", QP_BF16}, {"F64", QP_F64}, {"I8", QP_I8}};
    qp_tensor_t *to = &t->tensor[at];
    const float *from = to->data;
    int i = 0;
    while (strcmp(types[i].name, type) != 0)
        i++;
    to->dtype = types[i].dtype;
    to->n_bytes = qp_bytes(qp_tensor_n(to), qp_dtype_bytes(to->dtype));
    to->data = t->owned[at] = qp_alloc("test", to->n_bytes);
    if (qp_convert_knows(to->dtype)) /* of other types the values do not matter */
        qp_convert_from_f32(to->dtype, from, qp_tensor_n(to), t->owned[at]);
}

static void replace(tensors_t *t, int at, const char *text, const char *by)
{
    char *where = strstr(t->name[at], text);
    char *name =
        qp_format("%.*s%s%s", (int)(where - t->name[at]), t->name[at], by, where + strlen(text));
    snprintf(t->name[at], N_NAME, "%s", name);
    qp_free(name);
}

static void fill(tensors_t *t, int at, double value)
{
    const qp_tensor_t *to = &t->tensor[at];
    float *data = t->owned[at] = qp_alloc("test", to->n_bytes);
    for (int64_t i = 0; i < qp_tensor_n(to); i++)
        data[i] = (float)value;
    t->tensor[at].data = data;
}

/* A number as Python writes it, finite or not. */
static double number(const json_t *value)
{
    char *text = qp_json_line(value);
    const double x = json_is_number(value) ? json_number_value(value) : strtod(text, NULL);
    qp_free(text);
    return x;
}

static void change_one(tensors_t *t, int at, const json_t *change)
{
    const char *op = json_string_value(json_array_get(change, 0));
    const char *text = json_string_value(json_array_get(change, 1));
    const json_t *value = json_array_get(change, 2);
    if (strcmp(op, "drop") == 0) {
        drop(t, at);
    } else if (strcmp(op, "cast") == 0) {
        cast(t, at, json_string_value(value));
    } else if (strcmp(op, "replace") == 0) {
        replace(t, at, text, json_string_value(value));
    } else if (strcmp(op, "fill") == 0) {
        fill(t, at, number(value));
    } else if (CHECK(strcmp(op, "rows") == 0)) {
        t->tensor[at].dim[0] = (int64_t)json_integer_value(value);
        t->tensor[at].n_bytes = qp_bytes(qp_tensor_n(&t->tensor[at]), sizeof(float));
    }
}

static void write_tensors(const qp_safetensors_t *golden, const json_t *changes)
{
    static tensors_t t;
    const json_t *change;
    size_t i;
    t.n = (int)qp_safetensors_n(golden);
    for (int at = 0; at < t.n; at++) {
        t.tensor[at] = *qp_safetensors_at(golden, at);
        snprintf(t.name[at], N_NAME, "%s", t.tensor[at].name);
        t.tensor[at].name = t.name[at];
    }
    json_array_foreach(changes, i, change)
    {
        const char *text = json_string_value(json_array_get(change, 1));
        if (strcmp(json_string_value(json_array_get(change, 0)), "add") == 0)
            add(&t, text, change);
        else
            for (int at = t.n - 1; at >= 0; at--)
                if (strstr(t.name[at], text) != NULL)
                    change_one(&t, at, change);
    }
    char *path = qp_format("%s/adapter_model.safetensors", folder);
    CHECK_OK(qp_safetensors_write(path, t.tensor, t.n));
    qp_free(path);
    for (int at = 0; at < MAX_TENSOR; at++)
        QP_FREE(t.owned[at]);
}

/* --- verdicts --------------------------------------------------------------------------------- */

typedef struct {
    double norm, probe;
} print_t;

static void add_to_print(double x, int64_t row, int64_t col, int64_t n, print_t *print)
{
    print->norm += x * x;
    print->probe += x * cos(0.7 * (double)row + 1.3 * (double)col) / sqrt((double)n / 2.0);
}

static print_t print_of_pair(const qp_peft_t *peft, const qp_peft_pair_t *pair)
{
    print_t print = {0};
    for (int64_t row = 0; row < pair->n_out; row++)
        for (int64_t col = 0; col < pair->n_in; col++) {
            double sum = 0.0;
            for (int64_t k = 0; k < peft->r; k++)
                sum += (double)pair->b[row * peft->r + k] * (double)pair->a[k * pair->n_in + col];
            add_to_print(sum * qp_peft_scaling(peft), row, col, pair->n_out * pair->n_in, &print);
        }
    print.norm = sqrt(print.norm);
    return print;
}

static print_t print_of_score(const qp_peft_t *peft)
{
    print_t print = {0};
    const int64_t n = peft->n_score * peft->d_model;
    for (int64_t i = 0; i < n; i++)
        add_to_print((double)peft->score[i], i / peft->d_model, i % peft->d_model, n, &print);
    print.norm = sqrt(print.norm);
    return print;
}

static bool is_near(print_t found, const json_t *delta, int64_t at)
{
    const json_t *wanted = json_array_get(delta, (size_t)at);
    const double norm = json_number_value(json_array_get(wanted, 0));
    const double probe = json_number_value(json_array_get(wanted, 1));
    return fabs(found.norm - norm) <= 1e-6 * norm && fabs(found.probe - probe) <= 1e-6 * norm;
}

/* Every linear, also those without a pair, and the head. */
static bool is_delta(const qp_peft_t *peft, const json_t *delta)
{
    const int64_t n_linear = model.n_layer * QP_N_LINEAR;
    bool same = (int64_t)json_array_size(delta) == n_linear + (peft->score != NULL);
    for (int64_t i = 0, p = 0; same && i < n_linear; i++) {
        print_t found = {0};
        if (p < peft->n_pair && peft->pair[p].layer * QP_N_LINEAR + peft->pair[p].linear == i)
            found = print_of_pair(peft, &peft->pair[p++]);
        same = is_near(found, delta, i);
    }
    return same && (peft->score == NULL || is_near(print_of_score(peft), delta, n_linear));
}

static void check_message(const char *name, const json_t *one, const qp_error_t error)
{
    const json_t *part;
    size_t i;
    CHECK_MSG(error->code == QP_INPUT, "%s: code %d", name, error->code);
    json_array_foreach(json_object_get(one, "names"), i, part)
    {
        CHECK_MSG(strstr(error->message, json_string_value(part)) != NULL,
                  "%s: the message does not name %s: %s", name, json_string_value(part),
                  error->message);
    }
}

static void check_case(const json_t *one, const json_t *deltas)
{
    const char *name = json_string_value(json_object_get(one, "name"));
    const json_t *read = json_object_get(one, "read"), *verdict = json_object_get(one, "peft");
    qp_peft_t peft, shape;
    qp_error_t error = qp_peft_read(folder, &model, &peft);
    if (error != NULL) {
        CHECK_MSG(!json_is_true(read), "%s: refused: %s", name, error->message);
        check_message(name, one, error);
        qp_error_destroy(&error);
        return;
    }
    CHECK_MSG(!json_is_false(read), "%s: read", name);
    CHECK_MSG(json_is_integer(verdict), "%s: read, but PEFT refuses it", name);
    const size_t at = (size_t)json_integer_value(verdict);
    CHECK_MSG(is_delta(&peft, json_array_get(deltas, at)), "%s: another delta than PEFT's", name);
    if (CHECK_OK(qp_peft_read_shape(folder, &shape)))
        CHECK_MSG(shape.r == peft.r && shape.alpha == peft.alpha &&
                      memcmp(shape.target, peft.target, sizeof shape.target) == 0,
                  "%s: another shape", name);
    qp_peft_fini(&shape);
    qp_peft_fini(&peft);
}

int main(void)
{
    json_t *corpus = read_json(qp_test_source("tests/golden/adapters.json"));
    const json_t *cases = json_object_get(corpus, "cases"), *one;
    qp_source_t *base = NULL;
    qp_safetensors_t *golden = NULL;
    size_t i;
    folder = qp_format("%s/adapter", qp_test_folder());
    mkdir(folder, 0777);
    CHECK(json_array_size(cases) >= 300);
    CHECK_OK(qp_safetensors_open(
        qp_test_source("tests/golden/formats/adapter/adapter_model.safetensors"), &golden));
    if (CHECK_OK(qp_source_open(qp_test_source("tests/golden/formats/tiny.gguf"), &base))) {
        model = *qp_source_config(base);
        json_array_foreach(cases, i, one)
        {
            write_config(one);
            write_tensors(golden, json_object_get(one, "tensors"));
            check_case(one, json_object_get(corpus, "deltas"));
        }
    }
    qp_source_close(&base);
    qp_safetensors_close(&golden);
    qp_free(folder);
    json_decref(corpus);
    return qp_test_end();
}
