/* QP_TEST: labels=shared
 * Templates of real model families write what Jinja2 writes with transformers' environment: they
 * are read from the shared folder, and hashes of their texts stand in tests/golden/jinja.json. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "testing.h"
#include "jinja/jinja.h"

/* FNV-1a, which tests/golden/make_jinja.py computes too. */
static uint64_t hash(const qp_str_t *text)
{
    uint64_t value = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < text->n; i++)
        value = (value ^ (unsigned char)text->data[i]) * 0x100000001b3ULL;
    return value;
}

static void read_file(const char *path, qp_str_t *text)
{
    FILE *file = fopen(path, "rb");
    char buffer[4096];
    if (!CHECK_MSG(file != NULL, "%s is missing", path))
        return;
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;)
        qp_str_append(text, buffer, n);
    fclose(file);
}

/* A hash, or null where Jinja2 refuses. */
static void check_input(const qp_jinja_t *jinja, const char *key, const json_t *variables,
                        const json_t *wanted)
{
    qp_jinja_output_t output = {0};
    qp_error_t error = qp_jinja_render(jinja, variables, "messages", &output);
    char found[32] = "null";
    if (error == NULL)
        snprintf(found, sizeof found, "%016llx", (unsigned long long)hash(&output.text));
    CHECK_MSG(strcmp(found, json_is_string(wanted) ? json_string_value(wanted) : "null") == 0,
              "%s: %s", key, error != NULL ? error->message : output.text.data);
    qp_error_destroy(&error);
    qp_jinja_output_fini(&output);
}

static void check_template(const char *folder, const char *name, json_t *hashes,
                           const json_t *inputs)
{
    char *path = qp_format("%s/%s", folder, name);
    qp_str_t text = {0};
    qp_jinja_t *jinja = NULL;
    const char *key;
    json_t *wanted;
    read_file(path, &text);
    if (CHECK_OK(qp_jinja_compile(name, text.data, text.n, &jinja))) {
        json_object_foreach(hashes, key, wanted)
            check_input(jinja, key, json_object_get(inputs, key), wanted);
    }
    qp_jinja_destroy(&jinja);
    qp_str_fini(&text);
    qp_free(path);
}

int main(void)
{
    const char *folder = qp_test_shared("data/chat-templates"), *name;
    json_error_t where;
    json_t *hashes;
    if (folder == NULL)
        return QP_TEST_SKIP;
    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
    setenv("TZ", "UTC", 1);
    json_t *golden =
        json_load_file(qp_test_source("tests/golden/jinja.json"), JSON_ALLOW_NUL, &where);
    CHECK(json_object_size(json_object_get(golden, "shared")) == 18);
    json_object_foreach(json_object_get(golden, "shared"), name, hashes)
        check_template(folder, name, hashes, json_object_get(golden, "inputs"));
    json_decref(golden);
    return qp_test_end();
}
