/* Classes of transformers that build parts of a tokenizer by rules of their own, whatever its files
 * say. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

#define QWEN2_PATTERN                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Tokens that a class names where the config does not. */
typedef struct {
    const char *key, *text;
} name_t;

typedef struct {
    const char *name;
    bool byte_level;
    const char *form;    /* normalizer of a byte-level class, or NULL */
    const char *pattern; /* what one splits by, or NULL for GPT-2's */
    name_t token[4];
} class_t;

#define END_OF_TEXT "<|endoftext|>"

enum { LLAMA };
static const class_t CLASSES[] = {
    [LLAMA] = {"LlamaTokenizer",
               .token = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}}},
    {"GPT2Tokenizer", true,
     .token = {{"bos_token", END_OF_TEXT}, {"eos_token", END_OF_TEXT}, {"unk_token", END_OF_TEXT}}},
    {"Qwen2Tokenizer",
     true,
     "NFC",
     QWEN2_PATTERN,
     {{"eos_token", END_OF_TEXT}, {"unk_token", END_OF_TEXT}, {"pad_token", END_OF_TEXT}}},
};
enum { N_CLASS = sizeof CLASSES / sizeof CLASSES[0], N_NAME = 4 };

/* The others of transformers 5; a class that it does not know follows the files. */
static const char *const OTHERS[] = {
    "AlbertTokenizer",     "BarthezTokenizer",     "BertTokenizer",       "BigBirdTokenizer",
    "BlenderbotTokenizer", "CamembertTokenizer",   "CLIPTokenizer",       "CodeGenTokenizer",
    "CodeLlamaTokenizer",  "CohereTokenizer",      "ConvBertTokenizer",   "DebertaTokenizer",
    "DebertaV2Tokenizer",  "DistilBertTokenizer",  "ElectraTokenizer",    "FNetTokenizer",
    "FunnelTokenizer",     "GemmaTokenizer",       "GPTNeoXTokenizer",    "HerbertTokenizer",
    "LasrTokenizer",       "LayoutLMv2Tokenizer",  "LayoutLMv3Tokenizer", "LayoutXLMTokenizer",
    "LukeTokenizer",       "MarkupLMTokenizer",    "MBartTokenizer",      "MBart50Tokenizer",
    "MLukeTokenizer",      "MPNetTokenizer",       "NllbTokenizer",       "NougatTokenizer",
    "OpenAIGPTTokenizer",  "PegasusTokenizer",     "ReformerTokenizer",   "RemBertTokenizer",
    "RobertaTokenizer",    "SeamlessM4TTokenizer", "Siglip2Tokenizer",    "SplinterTokenizer",
    "T5Tokenizer",         "UdopTokenizer",        "WhisperTokenizer",    "XGLMTokenizer",
    "XLMRobertaTokenizer", "XLNetTokenizer",
};

/* The name in \a config without "Fast", which transformers 5 takes off, is \a name. */
static bool is_named(const char *in_config, const char *name)
{
    const size_t n = strlen(name);
    return strncmp(in_config, name, n) == 0 &&
           (in_config[n] == '\0' || strcmp(in_config + n, "Fast") == 0);
}

/* The class that the config names; *found stays NULL where the files decide. */
static qp_error_t find_class(const json_t *config, const class_t **found)
{
    const char *name = "";
    *found = NULL;
    QP_TRY(qp_json_string(config, "tokenizer_class", "", &name));
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++)
        if (is_named(name, OTHERS[i]))
            return QP_ERROR(QP_INPUT,
                            "tokenizer_config.json: tokenizer_class %s has rules of its own in "
                            "transformers, which are not supported (those of LlamaTokenizer, "
                            "GPT2Tokenizer and Qwen2Tokenizer are; PreTrainedTokenizerFast follows "
                            "tokenizer.json)",
                            name);
    for (size_t i = 0; i < N_CLASS && *found == NULL; i++)
        if (is_named(name, CLASSES[i].name))
            *found = &CLASSES[i];
    return NULL;
}

qp_error_t qp_tokenizer_class(const json_t *config, bool *is_llama, bool *is_byte_level)
{
    const class_t *class;
    QP_TRY(find_class(config, &class));
    *is_llama = class == &CLASSES[LLAMA];
    *is_byte_level = class != NULL && class->byte_level;
    return NULL;
}

qp_error_t qp_tokenizer_name_by_class(qp_tokenizer_t *tokenizer, const json_t *config)
{
    const class_t *class;
    QP_TRY(find_class(config, &class));
    for (int i = 0; class != NULL && i < N_NAME; i++) {
        const char *key = class->token[i].key, *text = class->token[i].text;
        if (key != NULL && json_object_get(config, key) == NULL &&
            qp_tokenizer_find(tokenizer, text) >= 0)
            QP_TRY(qp_tokenizer_name(tokenizer, key, text));
    }
    return NULL;
}

/* --- byte-level classes ----------------------------------------------------------------------- */

qp_error_t qp_tokenizer_rebuild(json_t *root, const json_t *config)
{
    const class_t *class;
    bool prefix;
    QP_TRY(find_class(config, &class));
    QP_ASSERT(class != NULL && class->byte_level);
    QP_TRY(qp_json_bool(config, "add_prefix_space", false, &prefix));
    json_t *bytes = json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix,
                              "use_regex", class->pattern == NULL);
    json_t *words = class->pattern == NULL
                        ? bytes
                        : json_pack("{s:s, s:[{s:s, s:{s:s}, s:s}, o]}", "type", "Sequence",
                                    "pretokenizers", "type", "Split", "pattern", "Regex",
                                    class->pattern, "behavior", "Isolated", bytes);
    json_object_set_new(root, "normalizer",
                        class->form == NULL ? json_null()
                                            : json_pack("{s:s}", "type", class->form));
    json_object_set_new(root, "pre_tokenizer", words);
    json_object_set_new(root, "decoder", json_pack("{s:s}", "type", "ByteLevel"));
    json_t *flags = json_pack("{s:n, s:b, s:b, s:b}", "unk_token", "byte_fallback", 0, "fuse_unk",
                              0, "ignore_merges", 0);
    json_object_update(json_object_get(root, "model"), flags);
    json_decref(flags);
    return NULL;
}

/* --- LlamaTokenizer --------------------------------------------------------------------------- */

qp_error_t qp_tokenizer_set_llama(qp_tokenizer_t *tokenizer, const json_t *config)
{
    qp_split_step_t step = {.kind = QP_SPLIT_METASPACE, .replacement = QP_METASPACE};
    bool legacy, prefix;
    QP_TRY(qp_json_bool(config, "legacy", false, &legacy));
    QP_TRY(qp_json_bool(config, "add_prefix_space", true, &prefix));
    step.prepend = !prefix ? QP_PREPEND_NEVER : legacy ? QP_PREPEND_ALWAYS : QP_PREPEND_FIRST;
    qp_normal_fini(&tokenizer->normal);
    qp_split_fini(&tokenizer->split);
    return qp_split_add(&tokenizer->split, step);
}

qp_error_t qp_tokenizer_finish_llama(qp_tokenizer_t *tokenizer, const json_t *config)
{
    bool prefix;
    QP_TRY(qp_tokenizer_name_by_class(tokenizer, config));
    QP_TRY(qp_json_bool(config, "add_prefix_space", true, &prefix));
    tokenizer->decoder = (qp_decoder_t){.byte_fallback = true, .strip_spaces = prefix};
    return qp_tokenizer_replace_in_surfaces(&tokenizer->vocab, QP_METASPACE, " ");
}
