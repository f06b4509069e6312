/* Model folders as others damage them: keys removed, of another type, contradicted; tensors
 * missing, renamed, reshaped. Each is imported with the loss that transformers gives, or refused in
 * a sentence that names what is wrong; none is accepted with another loss. Cases and losses:
 * tests/golden/make_corpus.py. */
#include <ctype.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "formats/convert.h"
#include "formats/json.h"
#include "import/source.h"
#include "tiny.h"

enum { MAX_TOKEN = 64 };
static const double TOLERANCE = 1e-6; /* of a loss, relative: the bar */

/* What transformers loads and Quipu refuses, on purpose. */
static const struct {
    const char *message, *why;
} refusals[] = {
    {"is missing", "a default of the class is no size of a model"},
    {"expected", "a type or range that Python lets pass"},
    {"contradict", "two places say different things"},
    {" with the rope type", "two places say different things"},
    {" for the rope type", "two places say different things"},
    {"rotates whole heads", "a factor that is not applied"},
    {"stands there without a rope_type", "a scaling that is not applied"},
    {"type is \"", "two places say different things, or another family"},
    {"is not null", "keys of other models"},
    {"Quipu supports", "models and options that Quipu has not got"},
    {"which Quipu", "models and options that Quipu has not got"},
    {"which a Mistral does not have", "a bias that is not applied"},
    {"unexpected tensor", "weights of another model"},
    {"differs from the embedding", "two places say different things"},
    {"; Quipu reads F32, F16 and BF16", "types of no trained model"},
    {"the model has tokens 0 to", "a special token beyond the model"},
    {"generation_config.json:1: ", "transformers leaves out a broken file"},
    {"tokenizer_config.json: ", "the loss needs no tokenizer, Quipu does"},
};

/* --- a case on disk --------------------------------------------------------------------------- */

static struct {
    char *folder, *base;
    json_t *root;         /* corpus.json */
    json_t *known;        /* losses by config and weights */
    const json_t *shapes; /* of the weights in the folder */
    bool edited;          /* they are not the model's own */
    qp_comm_t *comm;
    qp_device_t *device;
} corpus;

/* Not synced, as qp_file_write() would: there are thousands. */
static void write_text(const char *name, const char *text)
{
    char *path = qp_format("%s/%s", corpus.folder, name);
    FILE *file = fopen(path, "w");
    if (CHECK_MSG(file != NULL, "%s", path)) {
        CHECK(fputs(text, file) >= 0);
        CHECK(fclose(file) == 0);
    }
    qp_free(path);
}

/* A JSON file of raw values by key; those of the patch come over them, "" is the whole text. */
static void write_json(const char *name, json_t *keys, json_t *patch)
{
    qp_str_t text = {0};
    const char *key, *between = "{";
    json_t *value, *all = json_copy(keys), *whole = json_object_get(patch, "");
    json_object_update(all, patch);
    json_object_foreach(all, key, value)
    {
        if (json_is_null(value))
            continue;
        qp_str_printf(&text, "%s\"%s\": %s", between, key, json_string_value(value));
        between = ", ";
    }
    qp_str_puts(&text, "}");
    write_text(name, whole != NULL ? json_string_value(whole) : text.data);
    json_decref(all);
    qp_str_fini(&text);
}

/* A tensor's values: fp32 from the hash of \a like, stored in the named type. */
static qp_tensor_t make_tensor(const char *name, const json_t *shape, const char *type,
                               const char *like)
{
    static const struct {
        const char *name;
        qp_dtype_t dtype;
    } types[] = {{"F32", QP_F32}, {"F16", QP_F16}, {"BF16", QP_BF16},
                 {"F64", QP_F64}, {"I32", QP_I32}, {"U8", QP_U8}};
    qp_tensor_t t = {.name = name, .n_dim = (int)json_array_size(shape)};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i].name) == 0)
            t.dtype = types[i].dtype;
    for (int d = 0; d < t.n_dim; d++)
        t.dim[d] = json_integer_value(json_array_get(shape, (size_t)d));
    const int64_t n = qp_tensor_n(&t);
    const bool norm = qp_has_suffix(like, "norm.weight");
    const float scale = norm ? 0.25f : strstr(like, "embed_tokens") != NULL ? 4.0f : 1.0f;
    float *values = QP_NEW("test", float, n + 1);
    for (int64_t i = 0; i < n; i++)
        values[i] = tiny_uniform(like, i, scale) + (norm ? 1.0f : 0.0f);
    t.n_bytes = (size_t)n * qp_dtype_bytes(t.dtype);
    t.data = values; /* of types that Quipu does not read, any bytes do */
    if (t.dtype == QP_F16 || t.dtype == QP_BF16) {
        void *stored = qp_alloc("test", t.n_bytes);
        qp_convert_from_f32(t.dtype, values, n, stored);
        qp_free(values);
        t.data = stored;
    } else if (t.dtype == QP_F64) {
        t.data = qp_alloc("test", t.n_bytes);
        memset((void *)t.data, 0, t.n_bytes);
        qp_free(values);
    }
    return t;
}

static void write_weights(const json_t *shapes, const json_t *patch)
{
    enum { MAX = 64 };
    qp_tensor_t tensor[MAX];
    int64_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)shapes, name, value) if (json_object_get(patch, name) == NULL)
        tensor[n++] = make_tensor(name, value, "F32", name);
    json_object_foreach((json_t *)patch, name, value) if (!json_is_null(value)) tensor[n++] =
        make_tensor(name, json_array_get(value, 0), json_string_value(json_array_get(value, 1)),
                    json_string_value(json_array_get(value, 2)));
    char *path = qp_format("%s/model.safetensors", corpus.folder);
    CHECK_OK(qp_safetensors_write(path, tensor, n));
    for (int64_t i = 0; i < n; i++)
        qp_free((void *)tensor[i].data);
    qp_free(path);
}

static void write_case(const json_t *c)
{
    const json_t *base = json_object_get(json_object_get(corpus.root, "bases"),
                                         json_string_value(json_object_get(c, "base")));
    json_t *patch = json_object_get(c, "files"), *keys;
    const char *name;
    write_json("config.json", json_object_get(base, "config"),
               json_object_get(patch, "config.json"));
    json_object_foreach(json_object_get(corpus.root, "files"), name, keys)
        write_json(name, keys, json_object_get(patch, name));
    const json_t *shapes = json_object_get(base, "tensors"), *edits = json_object_get(c, "tensors");
    if (shapes != corpus.shapes || edits != NULL || corpus.edited) /* else they are there */
        write_weights(shapes, edits);
    corpus.shapes = shapes;
    corpus.edited = edits != NULL;
}

/* --- losses ----------------------------------------------------------------------------------- */

/* Mean loss of sequence \a i of the corpus. */
static double loss_of(const qp_base_t *base, int i, int64_t n)
{
    int32_t token[MAX_TOKEN], target[MAX_TOKEN], position[MAX_TOKEN];
    uint32_t sample[MAX_TOKEN] = {0};
    float logprob[MAX_TOKEN];
    const int32_t cu_seqlens[] = {0, (int32_t)n};
    char name[32];
    snprintf(name, sizeof name, "corpus.%d", i);
    for (int64_t t = 0; t < n; t++) {
        token[t] = (int32_t)(tiny_word(name, t) % 64);
        position[t] = (int32_t)t;
        target[t] = -1;
        if (t > 0)
            target[t - 1] = token[t];
    }
    const qp_model_batch_t batch = {.n_token = n,
                                    .n_seq = 1,
                                    .token = token,
                                    .target = target,
                                    .position = position,
                                    .cu_seqlens = cu_seqlens,
                                    .sample = sample};
    const qp_model_outputs_t outputs = {.logprob = logprob};
    const qp_role_t role = {base, NULL};
    const qp_pass_t pass = {.training = false};
    qp_workspace_t *ws;
    double sum = 0.0;
    CHECK_OK(qp_workspace_create(base, NULL, n, QP_RECOMPUTE_LAYER, &ws));
    CHECK_OK(qp_model_outputs(ws, &role, &batch, &pass, false, &outputs));
    for (int64_t t = 0; t < n; t++)
        sum -= (double)logprob[t];
    qp_workspace_destroy(&ws);
    return sum / (double)(n - 1);
}

static qp_base_t *load(void)
{
    const qp_base_config_t config = {.file = corpus.base, .outlier_threshold = 6.0};
    qp_base_t *base = NULL;
    CHECK_OK(qp_base_load(corpus.comm, corpus.device, &config, MAX_TOKEN, &base));
    return base;
}

typedef struct {
    int n_loss, n_refused, n_both, n_window;
    double worst;
} tally_t;

/* Imports the source and measures the losses of all sequences that a run would take; null for the
 * others. */
static json_t *measure(qp_source_t *source)
{
    const json_t *lengths = json_object_get(corpus.root, "lengths");
    json_t *found = json_array();
    CHECK_OK(qp_source_write_base(source, corpus.base, qp_base_kinds(QP_WEIGHT_F32)));
    qp_base_t *base = load();
    for (int i = 0; i < (int)json_array_size(lengths); i++) {
        const int64_t n = json_integer_value(json_array_get(lengths, (size_t)i));
        qp_error_t error = qp_llama_check_length(&base->config, "the sequence", n);
        CHECK((error != NULL) ==
              (base->config.sliding_window > 0 && base->config.sliding_window < n));
        json_array_append_new(found, error != NULL ? json_null() : json_real(loss_of(base, i, n)));
        qp_error_destroy(&error);
    }
    qp_base_destroy(corpus.comm, &base);
    return found;
}

/* The same config with the same weights has the same losses: most cases differ in what is not
 * used. */
static const json_t *losses_of(qp_source_t *source, const json_t *tensors)
{
    char *config = qp_llama_config_to_json(qp_source_config(source));
    char *weights = json_dumps(tensors, JSON_SORT_KEYS | JSON_ENCODE_ANY);
    char *key = qp_format("%s%s", config, weights != NULL ? weights : "");
    if (json_object_get(corpus.known, key) == NULL)
        json_object_set_new(corpus.known, key, measure(source));
    const json_t *found = json_object_get(corpus.known, key);
    qp_free(key);
    free(weights);
    qp_free(config);
    return found;
}

static void compare(const json_t *found, const json_t *expected, const char *what, tally_t *tally)
{
    for (size_t i = 0; i < json_array_size(found); i++) {
        const json_t *loss = json_array_get(found, i);
        if (json_is_null(loss)) {
            tally->n_window++;
            continue;
        }
        const double golden = json_number_value(json_array_get(expected, i));
        const double off = fabs(json_number_value(loss) / golden - 1.0);
        CHECK_MSG(off <= TOLERANCE, "%s: sequence %d: the loss is off by %g", what, (int)i, off);
        tally->worst = fmax(tally->worst, off);
    }
    tally->n_loss++;
}

/* --- refusals --------------------------------------------------------------------------------- */

/* True if the message names a key of the object, or one inside of its raw values. */
static bool names_key(const char *message, json_t *object)
{
    const char *key;
    json_t *value;
    bool names = false;
    json_object_foreach(object, key, value)
    {
        names |= key[0] != '\0' && strstr(message, key) != NULL;
        char *raw = qp_strdup(json_is_string(value) ? json_string_value(value) : ""), *rest = NULL;
        for (char *word = strtok_r(raw, "\"", &rest); word != NULL;
             word = strtok_r(NULL, "\"", &rest))
            names |= isalpha((unsigned char)word[0]) && strstr(message, word) != NULL;
        qp_free(raw);
    }
    return names;
}

/* The message names a file and what it holds or lacks. */
static bool names_something(const char *message, const json_t *c)
{
    const char *name;
    json_t *patch, *bases = json_object_get(corpus.root, "bases");
    json_t *base = json_object_get(bases, json_string_value(json_object_get(c, "base")));
    if (strstr(message, corpus.folder) == NULL)
        return false;
    json_object_foreach(
        json_object_get(c, "files"), name,
        patch) if (strstr(message, name) != NULL &&
                   (names_key(message, patch) || json_object_get(patch, "") != NULL)) return true;
    return strstr(message, ": tensor model.layers.") != NULL ||
           names_key(message, json_object_get(base, "config")) ||
           names_key(message, json_object_get(base, "tensors")) ||
           names_key(message, json_object_get(c, "tensors"));
}

static void check_refusal(const qp_error_t error, const json_t *c, const char *what, tally_t *tally)
{
    const json_t *expected = json_object_get(c, "transformers");
    bool known = !json_is_array(expected);
    CHECK_MSG(error->code == QP_INPUT, "%s: %s", what, error->message);
    CHECK_MSG(names_something(error->message, c), "%s: the message names nothing: %s", what,
              error->message);
    for (size_t i = 0; !known && i < sizeof refusals / sizeof refusals[0]; i++)
        known = strstr(error->message, refusals[i].message) != NULL;
    CHECK_MSG(known, "%s: transformers loads it, refused: %s", what, error->message);
    tally->n_refused++;
    tally->n_both += !json_is_array(expected);
}

static void try_case(const json_t *c, tally_t *tally)
{
    char *what = json_dumps(c, JSON_COMPACT);
    const json_t *expected = json_object_get(c, "transformers");
    qp_source_t *source = NULL;
    write_case(c);
    qp_error_t error = qp_source_open(corpus.folder, &source);
    if (error != NULL)
        check_refusal(error, c, what, tally);
    else if (CHECK_MSG(json_is_array(expected), "%s: accepted", what))
        compare(losses_of(source, json_object_get(c, "tensors")), expected, what, tally);
    qp_source_close(&source);
    qp_error_destroy(&error);
    free(what);
}

int main(void)
{
    const qp_device_config_t device = {
        .backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_FP32, .threads = 1};
    void *text = NULL;
    size_t n_bytes, i;
    json_t *c;
    tally_t tally = {0};
    CHECK_OK(qp_comm_create(&corpus.comm));
    CHECK_OK(qp_device_open(&device, 0, 1, &corpus.device));
    corpus.folder = qp_format("%s/hf", qp_test_folder());
    corpus.base = qp_format("%s/base.h5", qp_test_folder());
    corpus.known = json_object();
    mkdir(corpus.folder, 0777);
    CHECK_OK(qp_file_read(qp_test_source("tests/golden/corpus.json"), &text, &n_bytes));
    CHECK_OK(qp_json_parse_object("corpus.json", text, n_bytes, 0, &corpus.root));
    write_text("tokenizer.json", json_string_value(json_object_get(corpus.root, "tokenizer")));
    json_array_foreach(json_object_get(corpus.root, "cases"), i, c) try_case(c, &tally);
    printf("%zu folders: %d imported with transformers' loss (worst %.1e, %d sequences beyond a "
           "window), %d refused, %d of them by transformers too\n",
           json_array_size(json_object_get(corpus.root, "cases")), tally.n_loss, tally.worst,
           tally.n_window, tally.n_refused, tally.n_both);
    CHECK(tally.n_loss >= 200 && tally.n_refused >= 300);
    json_decref(corpus.known);
    json_decref(corpus.root);
    qp_free(text);
    qp_free(corpus.folder);
    qp_free(corpus.base);
    qp_device_close(&corpus.device);
    qp_comm_destroy(&corpus.comm);
    return qp_test_end();
}
