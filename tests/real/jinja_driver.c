/* Renders templates for tests/golden/fuzz_jinja.py: one JSON object {"template", "variables",
 * "tracked"} per line of standard input gives one line {"text", "generation", "items"}, spans in
 * bytes, or {"error"}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/json.h"
#include "jinja/jinja.h"

static json_t *spans_json(const qp_jinja_spans_t *spans)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < spans->n; i++)
        json_array_append_new(list, json_pack("[I, I, I]", (json_int_t)spans->span[i].begin,
                                              (json_int_t)spans->span[i].end,
                                              (json_int_t)spans->span[i].item));
    return list;
}

static qp_error_t render(const char *line, size_t n, json_t **answer)
{
    qp_jinja_output_t output = {0};
    qp_jinja_t *jinja = NULL;
    json_t *request = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_json_parse_object("stdin", line, n, 0, &request));
    const json_t *text = json_object_get(request, "template");
    QP_TRY_DONE(
        qp_jinja_compile("template", json_string_value(text), json_string_length(text), &jinja));
    QP_TRY_DONE(qp_jinja_render(jinja, json_object_get(request, "variables"),
                                json_string_value(json_object_get(request, "tracked")), &output));
    *answer =
        json_pack("{s:o, s:o, s:o}", "text",
                  json_stringn(output.text.data != NULL ? output.text.data : "", output.text.n),
                  "generation", spans_json(&output.generation), "items", spans_json(&output.items));
done:
    json_decref(request);
    qp_jinja_destroy(&jinja);
    qp_jinja_output_fini(&output);
    return error;
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
        json_t *answer = NULL;
        qp_error_t error = render(line, (size_t)n, &answer);
        if (error != NULL)
            answer = json_pack("{s:s}", "error", error->message);
        qp_error_destroy(&error);
        if (answer == NULL) /* a message that is no UTF-8 */
            answer = json_pack("{s:s}", "error", "?");
        json_dumpf(answer, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
        fputc('\n', stdout);
        fflush(stdout);
        json_decref(answer);
    }
    free(line);
    return qp_mem_check_leaks() > 0;
}
