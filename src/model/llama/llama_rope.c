/* Rotary positions: what config.json says of them, and the table that follows. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/llama/llama_json.h"

const char *const qp_llama_rope_name[] = {
    [QP_ROPE_DEFAULT] = "default", [QP_ROPE_LINEAR] = "linear", [QP_ROPE_LLAMA3] = "llama3"};
enum { N_ROPE = sizeof qp_llama_rope_name / sizeof qp_llama_rope_name[0] };

/* --- config.json ------------------------------------------------------------------------------ */

/* A dictionary of rope, under its new name or its old one; {} says nothing. */
static qp_error_t take_dictionary(const json_t *root, const char *key, const json_t **rope)
{
    const json_t *found = qp_json_get(root, key);
    if (found != NULL && !json_is_object(found))
        return qp_json_wrong(key, found, "an object or null");
    *rope = json_object_size(found) > 0 ? found : NULL;
    return NULL;
}

/* *rope and its key; NULL where the config has none. transformers would prefer the old one. */
static qp_error_t find_dictionary(const json_t *root, const json_t **rope, const char **key)
{
    const json_t *young = NULL, *old = NULL;
    QP_TRY(take_dictionary(root, "rope_parameters", &young));
    QP_TRY(take_dictionary(root, "rope_scaling", &old));
    if (young != NULL && old != NULL && !json_equal(young, old))
        return QP_ERROR(QP_INPUT, "rope_parameters and rope_scaling contradict each other");
    *rope = old != NULL ? old : young;
    *key = old != NULL ? "rope_scaling" : "rope_parameters";
    return NULL;
}

/* Inside the dictionary, beside it, or the default of both families. */
static qp_error_t read_theta(const json_t *root, const json_t *rope, double *theta)
{
    const json_t *inside = qp_llama_key(rope, "rope_theta");
    const json_t *beside = qp_llama_key(root, "rope_theta");
    if (inside != NULL && beside != NULL && json_is_number(beside) && json_is_number(inside) &&
        json_number_value(inside) != json_number_value(beside))
        return QP_ERROR(QP_INPUT, "rope_theta is %.17g, and %.17g with the rope type",
                        json_number_value(beside), json_number_value(inside));
    *theta = 10000.0;
    if (inside == NULL && beside == NULL)
        return NULL;
    return qp_llama_positive(inside != NULL ? rope : root, "rope_theta", theta);
}

static qp_error_t check_partial(const json_t *object)
{
    double part;
    QP_TRY(qp_json_number(object, "partial_rotary_factor", 1.0, &part));
    if (part != 1.0)
        return QP_ERROR(QP_INPUT, "partial_rotary_factor is %g; Quipu rotates whole heads (1.0)",
                        part);
    return NULL;
}

/* The spelling "type" is older than "rope_type". */
static qp_error_t read_type(const json_t *rope, const char **type)
{
    static const char *const spelling[] = {"rope_type", "type"};
    *type = NULL;
    for (int i = 0; i < 2; i++) {
        const json_t *found = qp_llama_key(rope, spelling[i]);
        if (found == NULL)
            continue;
        if (!qp_json_is_string(found))
            return qp_json_wrong(spelling[i], found, "a string");
        if (*type != NULL && strcmp(*type, json_string_value(found)) != 0)
            return QP_ERROR(QP_INPUT, "rope_type is \"%s\", type is \"%s\"", *type,
                            json_string_value(found));
        *type = json_string_value(found);
    }
    return NULL;
}

/* Without a type it is the default, which has no parameters but theta. */
static qp_error_t check_untyped(const json_t *rope)
{
    const char *key;
    json_t *value;
    json_object_foreach(
        (json_t *)rope, key,
        value) if (strcmp(key, "rope_theta") != 0 &&
                   strcmp(key, "partial_rotary_factor") !=
                       0) return QP_ERROR(QP_INPUT, "\"%s\" stands there without a rope_type", key);
    return NULL;
}

/* The length before scaling stands with the rope type; where it does not, it is
 * max_position_embeddings, as in transformers from version 5, which reads none beside it. */
static qp_error_t read_llama3(const json_t *root, const json_t *rope, qp_llama_config_t *c)
{
    static const char key[] = "original_max_position_embeddings";
    int64_t *original = &c->rope_original_max_position, beside;
    QP_TRY(qp_llama_positive(rope, "low_freq_factor", &c->rope_low_freq_factor));
    QP_TRY(qp_llama_positive(rope, "high_freq_factor", &c->rope_high_freq_factor));
    if (!(c->rope_high_freq_factor > c->rope_low_freq_factor))
        return qp_json_wrong("high_freq_factor", qp_json_get(rope, "high_freq_factor"),
                             "more than low_freq_factor");
    const json_t *inside = qp_llama_key(rope, key);
    if (json_is_null(inside))
        return qp_json_wrong(key, inside, "an integer");
    QP_TRY(qp_json_int(rope, key, c->max_position, 1, INT32_MAX, original));
    QP_TRY(qp_json_int(root, key, *original, 1, INT32_MAX, &beside));
    if (beside != *original && inside != NULL)
        return QP_ERROR(QP_INPUT, "%s is %ld, and %ld for the rope type", key, (long)beside,
                        (long)*original);
    if (beside != *original)
        return QP_ERROR(QP_INPUT, "%s is %ld, but none stands there for the rope type", key,
                        (long)beside);
    return NULL;
}

static qp_error_t read_dictionary(const json_t *root, const json_t *rope, qp_llama_config_t *c)
{
    const char *type;
    QP_TRY(check_partial(rope));
    QP_TRY(read_type(rope, &type));
    if (type == NULL)
        return check_untyped(rope);
    int i = 0;
    while (i < N_ROPE && strcmp(type, qp_llama_rope_name[i]) != 0)
        i++;
    if (i == N_ROPE)
        return QP_ERROR(QP_INPUT,
                        "rope scaling is \"%s\"; Quipu supports default, linear and llama3", type);
    c->rope_scaling = i;
    if (i != QP_ROPE_DEFAULT)
        QP_TRY(qp_llama_positive(rope, "factor", &c->rope_factor));
    return i == QP_ROPE_LLAMA3 ? read_llama3(root, rope, c) : NULL;
}

qp_error_t qp_llama_rope_from_json(const json_t *root, qp_llama_config_t *c)
{
    const json_t *rope;
    const char *key;
    QP_TRY(find_dictionary(root, &rope, &key));
    QP_TRY(read_theta(root, rope, &c->rope_theta));
    QP_TRY(check_partial(root));
    c->rope_scaling = QP_ROPE_DEFAULT;
    c->rope_factor = 1.0;
    return rope != NULL ? qp_error_context(read_dictionary(root, rope, c), "%s", key) : NULL;
}

/* --- the table -------------------------------------------------------------------------------- */

/* fp32 arithmetic, as the models were trained with. The llama3 rule keeps short wavelengths,
 * divides long ones by the factor and blends between. */
void qp_llama_rope_frequencies(const qp_llama_config_t *c, float *frequency)
{
    const float two_pi = 6.28318530717958647692f;
    float factor = (float)c->rope_factor;
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)c->head_dim;
        float f = 1.0f / powf((float)c->rope_theta, exponent);
        if (c->rope_scaling == QP_ROPE_LINEAR) {
            f /= factor;
        } else if (c->rope_scaling == QP_ROPE_LLAMA3) {
            float low = (float)c->rope_low_freq_factor, high = (float)c->rope_high_freq_factor;
            float original = (float)c->rope_original_max_position, wavelength = two_pi / f;
            float smooth = (original / wavelength - low) / (high - low);
            if (wavelength > original / low)
                f = f / factor;
            else if (wavelength >= original / high)
                f = (1.0f - smooth) * f / factor + smooth * f;
        }
        frequency[i] = f;
    }
}

void qp_llama_rope_table(const qp_llama_config_t *config, int64_t n_position, float *table)
{
    int64_t half = config->head_dim / 2;
    float *frequency = QP_NEW("rope", float, half);
    qp_llama_rope_frequencies(config, frequency);
    for (int64_t p = 0; p < n_position; p++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)((float)p * frequency[i]);
            table[p * config->head_dim + i] = (float)cos(angle);
            table[p * config->head_dim + half + i] = (float)sin(angle);
        }
    qp_free(frequency);
}
