/* tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder. Each is null, one step, or a
 * Sequence of steps; a step's type finds its reader in a table. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

typedef struct {
    const char *type;
    qp_error_t (*read)(qp_tokenizer_t *tokenizer, const json_t *step);
} reader_t;

enum { MAX_DEPTH = 8 };

static qp_error_t read_step(qp_tokenizer_t *tokenizer, const json_t *step, const char *list,
                            const reader_t *reader, int depth)
{
    json_t *name, *items, *item;
    size_t i;
    QP_TRY(qp_json_want(step, "type", JSON_STRING, &name));
    const char *type = json_string_value(name);
    if (strcmp(type, "Sequence") == 0 && depth < MAX_DEPTH) {
        QP_TRY(qp_json_want(step, list, JSON_ARRAY, &items));
        json_array_foreach(items, i, item)
            QP_TRY(read_step(tokenizer, item, list, reader, depth + 1));
        return NULL;
    }
    for (; reader->type != NULL; reader++)
        if (strcmp(type, reader->type) == 0)
            return qp_error_context(reader->read(tokenizer, step), "%s", type);
    return QP_ERROR(QP_INPUT, "type '%s' is not supported", type);
}

/* Reads a null, a step or a Sequence, whose steps are the array \a list. */
static qp_error_t read_steps(qp_tokenizer_t *tokenizer, const json_t *value, const char *part,
                             const char *list, const reader_t *readers)
{
    if (value == NULL || json_is_null(value))
        return NULL;
    return qp_error_context(read_step(tokenizer, value, list, readers, 0), "%s", part);
}

static qp_error_t ignore_step(qp_tokenizer_t *tokenizer, const json_t *step)
{
    (void)tokenizer;
    (void)step;
    return NULL;
}

/* --- normalizer ------------------------------------------------------------------------------- */

/* A text that must be there. */
static qp_error_t want_text(const json_t *step, const char *key, const char **text)
{
    json_t *value;
    QP_TRY(qp_json_want(step, key, JSON_STRING, &value));
    return qp_json_string(step, key, "", text);
}

static qp_error_t read_prepend(qp_tokenizer_t *tokenizer, const json_t *step)
{
    const char *text = "";
    QP_TRY(want_text(step, "prepend", &text));
    return qp_normal_add(&tokenizer->normal, QP_NORMAL_PREPEND, NULL, text);
}

/* The plain text of {"String": text}; a regular expression is not supported. */
static qp_error_t plain_pattern(const json_t *step, const char **text)
{
    *text = "";
    QP_TRY(qp_json_string(json_object_get(step, "pattern"), "String", "", text));
    return (*text)[0] != '\0' ? NULL
                              : QP_ERROR(QP_INPUT, "pattern is not {\"String\": text}, which is "
                                                   "the only kind supported here");
}

static qp_error_t read_replace(qp_tokenizer_t *tokenizer, const json_t *step)
{
    const char *from, *to = "";
    QP_TRY(plain_pattern(step, &from));
    QP_TRY(want_text(step, "content", &to));
    return qp_normal_add(&tokenizer->normal, QP_NORMAL_REPLACE, from, to);
}

static qp_error_t read_form(qp_tokenizer_t *tokenizer, const json_t *step)
{
    const char *form = json_string_value(json_object_get(step, "type"));
    return qp_normal_add(&tokenizer->normal, QP_NORMAL_UNICODE, form, NULL);
}

qp_error_t qp_tokenizer_read_normalizer(qp_tokenizer_t *tokenizer, const json_t *value)
{
    static const reader_t readers[] = {{"Prepend", read_prepend},
                                       {"Replace", read_replace},
                                       {"NFC", read_form},
                                       {"NFD", read_form},
                                       {"NFKC", read_form},
                                       {"NFKD", read_form},
                                       {NULL, NULL}};
    return read_steps(tokenizer, value, "normalizer", "normalizers", readers);
}

/* --- pre_tokenizer ---------------------------------------------------------------------------- */

static qp_error_t add_regex(qp_tokenizer_t *tokenizer, const char *pattern, bool literal,
                            bool drop_match, bool drop_gap)
{
    if (tokenizer->bpe.byte_level)
        return QP_ERROR(QP_INPUT, "a step after ByteLevel is not supported");
    qp_split_step_t step = {.kind = QP_SPLIT_REGEX, .drop_match = drop_match, .drop_gap = drop_gap};
    QP_TRY(qp_regex_create(pattern, literal, &step.regex));
    return qp_split_add(&tokenizer->split, step);
}

static qp_error_t read_byte_level(qp_tokenizer_t *tokenizer, const json_t *step)
{
    bool prefix, regex;
    QP_TRY(qp_json_bool(step, "add_prefix_space", true, &prefix));
    QP_TRY(qp_json_bool(step, "use_regex", true, &regex));
    if (prefix)
        QP_TRY(qp_split_add(&tokenizer->split, (qp_split_step_t){.kind = QP_SPLIT_PREFIX}));
    if (regex)
        QP_TRY(add_regex(tokenizer, QP_GPT2_PATTERN, false, false, false));
    tokenizer->bpe.byte_level = true;
    return NULL;
}

static qp_error_t read_split(qp_tokenizer_t *tokenizer, const json_t *step)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const char *regex = "", *text = "", *behavior = "";
    bool invert;
    QP_TRY(qp_json_string(pattern, "Regex", "", &regex));
    QP_TRY(qp_json_string(pattern, "String", "", &text));
    QP_TRY(want_text(step, "behavior", &behavior));
    QP_TRY(qp_json_bool(step, "invert", false, &invert));
    const bool removed = strcmp(behavior, "Removed") == 0;
    if (regex[0] == '\0' && text[0] == '\0')
        return QP_ERROR(QP_INPUT, "pattern has neither Regex nor String");
    if (!removed && strcmp(behavior, "Isolated") != 0)
        return QP_ERROR(QP_INPUT, "behavior '%s' is not supported (Isolated and Removed are)",
                        behavior);
    return add_regex(tokenizer, regex[0] != '\0' ? regex : text, regex[0] == '\0',
                     removed && !invert, removed && invert);
}

static qp_error_t read_digits(qp_tokenizer_t *tokenizer, const json_t *step)
{
    bool individual;
    QP_TRY(qp_json_bool(step, "individual_digits", false, &individual));
    return add_regex(tokenizer, individual ? "\\p{N}" : "\\p{N}+", false, false, false);
}

static qp_error_t read_whitespace_split(qp_tokenizer_t *tokenizer, const json_t *step)
{
    (void)step;
    return add_regex(tokenizer, "\\s+", false, true, false);
}

static qp_error_t read_metaspace(qp_tokenizer_t *tokenizer, const json_t *step)
{
    static const char *const schemes[] = {
        [QP_PREPEND_NEVER] = "never", [QP_PREPEND_FIRST] = "first", [QP_PREPEND_ALWAYS] = "always"};
    const char *replacement = "", *scheme = "";
    bool prefix, cut;
    QP_TRY(want_text(step, "replacement", &replacement));
    QP_TRY(qp_json_bool(step, "add_prefix_space", true, &prefix));
    QP_TRY(qp_json_bool(step, "split", true, &cut));
    /* files before prepend_scheme have the flag alone */
    QP_TRY(qp_json_string(step, "prepend_scheme", prefix ? "always" : "never", &scheme));
    qp_split_step_t made = {.kind = QP_SPLIT_METASPACE};
    if (replacement[0] == '\0' || strlen(replacement) >= sizeof made.replacement)
        return QP_ERROR(QP_INPUT, "replacement '%s' is not one character", replacement);
    strcpy(made.replacement, replacement);
    int prepend = 0;
    while (prepend <= QP_PREPEND_ALWAYS && strcmp(scheme, schemes[prepend]) != 0)
        prepend++;
    if (prepend > QP_PREPEND_ALWAYS)
        return QP_ERROR(QP_INPUT, "prepend_scheme '%s' is not first, never or always", scheme);
    made.prepend = (qp_prepend_t)prepend;
    QP_TRY(qp_split_add(&tokenizer->split, made));
    if (!cut)
        return NULL;
    char *pattern = qp_format("\\Q%s\\E[^\\Q%s\\E]*", replacement, replacement);
    qp_error_t error = add_regex(tokenizer, pattern, false, false, false);
    qp_free(pattern);
    return error;
}

qp_error_t qp_tokenizer_read_pre_tokenizer(qp_tokenizer_t *tokenizer, const json_t *value)
{
    static const reader_t readers[] = {
        {"ByteLevel", read_byte_level}, {"Split", read_split},
        {"Digits", read_digits},        {"WhitespaceSplit", read_whitespace_split},
        {"Metaspace", read_metaspace},  {NULL, NULL}};
    return read_steps(tokenizer, value, "pre_tokenizer", "pretokenizers", readers);
}

/* --- post_processor --------------------------------------------------------------------------- */

/* Appends the ids of a template's special token. */
static qp_error_t push_special(const json_t *specials, const char *name, qp_tokens_t *tokens)
{
    json_t *ids;
    size_t i;
    json_t *id;
    QP_TRY(qp_error_context(qp_json_want(json_object_get(specials, name), "ids", JSON_ARRAY, &ids),
                            "special_tokens['%s']", name));
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= QP_MAX_VOCAB)
            return QP_ERROR(QP_INPUT, "special_tokens['%s'] has no proper id", name);
        qp_tokens_push(tokens, (int32_t)json_integer_value(id));
    }
    return NULL;
}

static qp_error_t read_template(qp_tokenizer_t *tokenizer, const json_t *step)
{
    json_t *single, *item;
    size_t i;
    int n_sequence = 0;
    QP_TRY(qp_json_want(step, "single", JSON_ARRAY, &single));
    json_array_foreach(single, i, item)
    {
        const json_t *special = json_object_get(item, "SpecialToken");
        const char *name = "";
        if (special != NULL) {
            QP_TRY(want_text(special, "id", &name));
            QP_TRY(push_special(json_object_get(step, "special_tokens"), name,
                                n_sequence == 0 ? &tokenizer->prefix : &tokenizer->suffix));
        } else if (json_object_get(item, "Sequence") != NULL) {
            n_sequence++;
        } else {
            return QP_ERROR(QP_INPUT, "single[%zu] is neither SpecialToken nor Sequence", i);
        }
    }
    return n_sequence == 1 ? NULL : QP_ERROR(QP_INPUT, "single holds %d texts", n_sequence);
}

/* ByteLevel: does nothing to the ids. */
static qp_error_t read_trim(qp_tokenizer_t *tokenizer, const json_t *step)
{
    bool trim, prefix;
    QP_TRY(qp_json_bool(step, "trim_offsets", true, &trim));
    QP_TRY(qp_json_bool(step, "add_prefix_space", true, &prefix));
    if (trim)
        tokenizer->trim = (qp_trim_t){.trim = true, .add_prefix_space = prefix};
    return NULL;
}

/* Appends the id of a pair [text, id]. */
static qp_error_t push_pair(const json_t *step, const char *key, qp_tokens_t *tokens)
{
    json_t *pair;
    QP_TRY(qp_json_want(step, key, JSON_ARRAY, &pair));
    const json_t *id = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= QP_MAX_VOCAB)
        return qp_json_wrong(key, pair, "a text and its id");
    qp_tokens_push(tokens, (int32_t)json_integer_value(id));
    return NULL;
}

/* BERT's: cls in front, sep behind. */
static qp_error_t read_bert(qp_tokenizer_t *tokenizer, const json_t *step)
{
    QP_TRY(push_pair(step, "cls", &tokenizer->prefix));
    return push_pair(step, "sep", &tokenizer->suffix);
}

static qp_error_t read_roberta(qp_tokenizer_t *tokenizer, const json_t *step)
{
    QP_TRY(read_trim(tokenizer, step));
    return read_bert(tokenizer, step);
}

qp_error_t qp_tokenizer_read_post_processor(qp_tokenizer_t *tokenizer, const json_t *value)
{
    static const reader_t readers[] = {{"TemplateProcessing", read_template},
                                       {"ByteLevel", read_trim},
                                       {"RobertaProcessing", read_roberta},
                                       {"BertProcessing", read_bert},
                                       {NULL, NULL}};
    return read_steps(tokenizer, value, "post_processor", "processors", readers);
}

/* --- decoder ---------------------------------------------------------------------------------- */

static qp_error_t decode_byte_level(qp_tokenizer_t *tokenizer, const json_t *step)
{
    (void)step;
    tokenizer->decoder.byte_level = true;
    qp_vocab_t *vocab = &tokenizer->vocab;
    qp_str_t bytes = {0};
    for (int64_t i = 0; i < vocab->n; i++) {
        const qp_vocab_entry_t *entry = qp_vocab_get(vocab, i);
        qp_str_clear(&bytes);
        if (entry != NULL && qp_gpt2_bytes(qp_vocab_text(vocab, entry), entry->n_text, &bytes))
            qp_vocab_set_surface(vocab, i, bytes.n > 0 ? bytes.data : "", bytes.n);
    }
    qp_str_fini(&bytes);
    return NULL;
}

qp_error_t qp_tokenizer_replace_in_surfaces(qp_vocab_t *vocab, const char *from, const char *to)
{
    if (strlen(to) > strlen(from))
        return QP_ERROR(QP_INPUT, "'%s' is longer than the '%s' it replaces", to, from);
    qp_str_t surface = {0};
    const size_t n_from = strlen(from);
    for (int64_t i = 0; i < vocab->n; i++) {
        const qp_vocab_entry_t *entry = qp_vocab_get(vocab, i);
        if (entry == NULL || strstr(qp_vocab_surface(vocab, entry), from) == NULL)
            continue;
        const char *rest = qp_vocab_surface(vocab, entry), *hit;
        qp_str_clear(&surface);
        for (; (hit = strstr(rest, from)) != NULL; rest = hit + n_from) {
            qp_str_append(&surface, rest, (size_t)(hit - rest));
            qp_str_puts(&surface, to);
        }
        qp_str_puts(&surface, rest);
        qp_vocab_set_surface(vocab, i, surface.n > 0 ? surface.data : "", surface.n);
    }
    qp_str_fini(&surface);
    return NULL;
}

static qp_error_t decode_replace(qp_tokenizer_t *tokenizer, const json_t *step)
{
    const char *from, *to = "";
    QP_TRY(plain_pattern(step, &from));
    QP_TRY(want_text(step, "content", &to));
    return qp_tokenizer_replace_in_surfaces(&tokenizer->vocab, from, to);
}

static qp_error_t decode_byte_fallback(qp_tokenizer_t *tokenizer, const json_t *step)
{
    (void)step;
    tokenizer->decoder.byte_fallback = true;
    return NULL;
}

/* Strip after Fuse: acts on the whole text, as tokenizers converted from SentencePiece have it. */
static qp_error_t decode_strip(qp_tokenizer_t *tokenizer, const json_t *step)
{
    const char *content = "";
    int64_t stop;
    QP_TRY(want_text(step, "content", &content));
    QP_TRY(qp_json_int(step, "stop", 0, 0, INT32_MAX, &stop));
    if (strcmp(content, " ") != 0 || stop != 0)
        return QP_ERROR(QP_INPUT, "only spaces at the start can be stripped");
    return qp_json_int(step, "start", 0, 0, INT32_MAX, &tokenizer->decoder.strip_spaces);
}

static qp_error_t decode_metaspace(qp_tokenizer_t *tokenizer, const json_t *step)
{
    const char *replacement = "", *scheme = "";
    bool prefix;
    QP_TRY(want_text(step, "replacement", &replacement));
    QP_TRY(qp_json_string(step, "prepend_scheme", "", &scheme));
    QP_TRY(qp_json_bool(step, "add_prefix_space", true, &prefix));
    if (replacement[0] == '\0')
        return QP_ERROR(QP_INPUT, "replacement is empty");
    if (strcmp(scheme, "never") != 0 && prefix) {
        qp_free(tokenizer->decoder.drop_in_first);
        tokenizer->decoder.drop_in_first = qp_strdup(replacement);
    }
    return qp_tokenizer_replace_in_surfaces(&tokenizer->vocab, replacement, " ");
}

qp_error_t qp_tokenizer_read_decoder(qp_tokenizer_t *tokenizer, const json_t *value)
{
    static const reader_t readers[] = {{"ByteLevel", decode_byte_level},
                                       {"Replace", decode_replace},
                                       {"ByteFallback", decode_byte_fallback},
                                       {"Fuse", ignore_step},
                                       {"Strip", decode_strip},
                                       {"Metaspace", decode_metaspace},
                                       {NULL, NULL}};
    if (value == NULL || json_is_null(value))
        return QP_ERROR(QP_INPUT, "decoder: missing");
    return read_steps(tokenizer, value, "decoder", "decoders", readers);
}
