/* libFuzzer: any text as a chat template is refused or writes something, within its bounds. The
 * variables, JSON, follow the template after a NUL byte. */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "formats/json.h"
#include "jinja/jinja.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static const char plain[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi \\u00fc\"}, {\"role\": \"assistant\","
    " \"content\": \"Yes.\\n\", \"n\": [1, 2.5, null, true, {}]}], \"s\": \"some <text>\", \"n\": "
    "3,"
    " \"tools\": [{\"function\": {\"name\": \"f\"}}], \"add_generation_prompt\": true}";

static void check_spans(const qp_jinja_spans_t *spans, size_t n_bytes)
{
    size_t end = 0;
    for (int64_t i = 0; i < spans->n; i++) {
        QP_ASSERT(spans->span[i].begin >= end && spans->span[i].begin < spans->span[i].end);
        end = spans->span[i].end;
    }
    QP_ASSERT(end <= n_bytes);
}

static void render(const char *text, size_t n_bytes, const json_t *variables)
{
    qp_jinja_t *jinja = NULL;
    qp_jinja_output_t output = {0};
    qp_error_t error = qp_jinja_compile("fuzz", text, n_bytes, &jinja);
    if (error == NULL)
        error = qp_jinja_render(jinja, variables, "messages", &output);
    if (error == NULL) {
        check_spans(&output.items, output.text.n);
        check_spans(&output.generation, output.text.n);
        QP_ASSERT(qp_utf8_valid_prefix(output.text.data, output.text.n) == output.text.n);
    }
    QP_ASSERT(error == NULL || error->code == QP_INPUT);
    qp_error_destroy(&error);
    qp_jinja_output_fini(&output);
    qp_jinja_destroy(&jinja);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const uint8_t *nul = n_bytes > 0 ? memchr(data, '\0', n_bytes) : NULL;
    const size_t n_text = nul != NULL ? (size_t)(nul - data) : n_bytes;
    qp_str_t text = {0};
    json_t *variables = NULL;
    qp_utf8_repair(&text, (const char *)data, n_text);
    qp_error_t error =
        nul != NULL ? qp_json_parse_object("fuzz", nul + 1, n_bytes - n_text - 1, 0, &variables)
                    : qp_json_parse_object("fuzz", plain, sizeof plain - 1, 0, &variables);
    if (error == NULL)
        render(text.n > 0 ? text.data : "", text.n, variables);
    qp_error_destroy(&error);
    json_decref(variables);
    qp_str_fini(&text);
    QP_ASSERT(qp_mem_alive() == 0);
    return 0;
}
