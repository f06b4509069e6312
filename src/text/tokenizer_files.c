/* The tokenizer files of an HF folder, brought together as transformers reads them. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/json.h"
#include "text/tokenizer.h"

void qp_tokenizer_files_fini(qp_tokenizer_files_t *files)
{
    qp_free(files->model);
    qp_free(files->config);
    *files = (qp_tokenizer_files_t){0};
}

/* Reads folder/name; *data stays NULL if there is no such file. */
static qp_error_t read_file(const char *folder, const char *name, void **data, size_t *n_bytes)
{
    char *path = qp_format("%s/%s", folder, name);
    qp_error_t error = NULL;
    if (access(path, F_OK) == 0)
        error = qp_file_read(path, data, n_bytes);
    qp_free(path);
    return error;
}

/* The object in folder/name; *object stays NULL if there is no such file. */
static qp_error_t read_object(const char *folder, const char *name, json_t **object)
{
    void *data = NULL;
    size_t n_bytes = 0;
    QP_TRY(read_file(folder, name, &data, &n_bytes));
    if (data == NULL)
        return NULL;
    char *path = qp_format("%s/%s", folder, name);
    qp_error_t error = qp_json_parse_object(path, data, n_bytes, 0, object);
    qp_free(path);
    qp_free(data);
    return error;
}

/* --- tokens ----------------------------------------------------------------------------------- */

/* A token as a text or as {"content": text}, or NULL. */
static const char *token_text(const json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static bool is_special(const json_t *config, const char *text)
{
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    const char *key;
    json_t *value, *item;
    size_t i;
    json_object_foreach((json_t *)config, key, value)
    {
        const char *named = token_text(value);
        if (qp_has_suffix(key, "_token") && named != NULL && strcmp(named, text) == 0)
            return true;
    }
    for (size_t k = 0; k < 2; k++)
        json_array_foreach(json_object_get(config, lists[k]), i, item)
        {
            if (token_text(item) != NULL && strcmp(token_text(item), text) == 0)
                return true;
        }
    return false;
}

/* The lists of further tokens: one that the config has is kept, and extra ones are added to it. */
static void fold_list(const json_t *map, bool is_sentencepiece, json_t *config)
{
    const char *const own = json_object_get(config, "extra_special_tokens") != NULL
                                ? "extra_special_tokens"
                                : "additional_special_tokens";
    json_t *extra = json_object_get(map, "extra_special_tokens");
    json_t *additional = json_object_get(map, "additional_special_tokens");
    json_t *list = json_object_get(config, own), *item;
    size_t i;
    if (json_is_object(extra)) {
        json_object_set(config, "extra_special_tokens", extra);
    } else if (json_is_array(extra)) {
        list = json_is_array(list) ? json_copy(list) : json_array();
        json_array_foreach(extra, i, item) json_array_append(list, item);
        json_object_set_new(config, "extra_special_tokens", list);
    } else if (additional != NULL && list == NULL && !is_sentencepiece) {
        json_object_set(config, "additional_special_tokens", additional);
    }
}

/* special_tokens_map.json: what it names counts before what the config names. Its
 * additional_special_tokens, as they were called before, transformers does not see beside a
 * SentencePiece model. */
static qp_error_t fold_special_tokens(const char *folder, bool is_sentencepiece, json_t *config)
{
    json_t *map = NULL, *value;
    const char *key;
    QP_TRY(read_object(folder, "special_tokens_map.json", &map));
    json_object_foreach(map, key, value)
    {
        if (!json_is_null(value) && !qp_has_suffix(key, "_special_tokens"))
            json_object_set(config, key, value);
    }
    fold_list(map, is_sentencepiece, config);
    json_decref(map);
    return NULL;
}

/* The texts of tokenizer.json's own added tokens, as the keys of an object. */
static qp_error_t own_added_tokens(const qp_tokenizer_files_t *files, json_t **texts)
{
    json_t *root = NULL, *item;
    size_t i;
    *texts = json_object();
    if (strcmp(files->kind, "tokenizer.json") != 0)
        return NULL;
    QP_TRY(qp_json_parse_object(files->kind, files->model, files->model_bytes, 0, &root));
    json_array_foreach(json_object_get(root, "added_tokens"), i, item)
    {
        if (token_text(item) != NULL)
            json_object_set_new(*texts, token_text(item), json_true());
    }
    json_decref(root);
    return NULL;
}

/* added_tokens.json, {text: id}, becomes the config's added_tokens_decoder. */
static qp_error_t fold_added_tokens(const char *folder, const qp_tokenizer_files_t *files,
                                    json_t *config)
{
    json_t *added = NULL, *own = NULL, *id;
    const char *text;
    qp_error_t error = NULL;
    QP_TRY(read_object(folder, "added_tokens.json", &added));
    if (added == NULL)
        return NULL;
    json_t *decoder = json_object();
    QP_TRY_DONE(own_added_tokens(files, &own));
    json_object_foreach(added, text, id)
    {
        if (!json_is_integer(id)) {
            error = qp_json_wrong(text, id, "an id");
            error = qp_error_context(error, "%s/added_tokens.json", folder);
            goto done;
        }
        if (json_object_get(own, text) != NULL)
            continue;
        char key[32];
        const int special = is_special(config, text);
        snprintf(key, sizeof key, "%lld", (long long)json_integer_value(id));
        json_object_set_new(decoder, key,
                            json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", text, "lstrip",
                                      0, "normalized", !special, "rstrip", 0, "single_word", 0,
                                      "special", special));
    }
    if (json_object_size(decoder) > 0)
        json_object_set(config, "added_tokens_decoder", decoder);
done:
    json_decref(decoder);
    json_decref(added);
    json_decref(own);
    return error;
}

/* --- chat templates --------------------------------------------------------------------------- */

/* Appends the template in folder/file, if there is one. */
static qp_error_t read_template(const char *folder, const char *file, const char *name,
                                json_t *templates)
{
    void *text = NULL;
    size_t n_bytes = 0;
    QP_TRY(read_file(folder, file, &text, &n_bytes));
    if (text == NULL)
        return NULL;
    json_t *value = json_stringn(text, n_bytes);
    qp_free(text);
    if (value == NULL)
        return QP_ERROR(QP_INPUT, "%s/%s: is not UTF-8", folder, file);
    json_array_append_new(templates, json_pack("{s:s, s:o}", "name", name, "template", value));
    return NULL;
}

static int is_template(const struct dirent *entry)
{
    return qp_has_suffix(entry->d_name, ".jinja");
}

/* Templates in files of their own stand for all that the config has. */
static qp_error_t fold_templates(const char *folder, json_t *config)
{
    json_t *templates = json_array();
    char *more = qp_format("%s/additional_chat_templates", folder);
    struct dirent **entry = NULL;
    const int n = scandir(more, &entry, is_template, alphasort);
    qp_error_t error = read_template(folder, "chat_template.jinja", "default", templates);
    for (int i = 0; i < n; i++) {
        char *name =
            qp_format("%.*s", (int)(strlen(entry[i]->d_name) - strlen(".jinja")), entry[i]->d_name);
        if (error == NULL)
            error = read_template(more, entry[i]->d_name, name, templates);
        qp_free(name);
        free(entry[i]);
    }
    free(entry);
    qp_free(more);
    json_t *first = json_array_get(templates, 0);
    if (json_array_size(templates) == 1 &&
        strcmp(json_string_value(json_object_get(first, "name")), "default") == 0)
        json_object_set(config, "chat_template", json_object_get(first, "template"));
    else if (first != NULL)
        json_object_set(config, "chat_template", templates);
    json_decref(templates);
    return error;
}

/* --- the whole -------------------------------------------------------------------------------- */

/* The class stands in tokenizer_config.json, else in config.json; transformers looks away from it
 * where config.json is of a family whose published folders name a wrong one. */
static qp_error_t fold_class(const char *folder, json_t *config)
{
    static const char *const families[] = {"mistral", "ministral", "ministral3"};
    json_t *model = NULL;
    const char *type = "", *name = "", *of_model = "";
    qp_error_t error = NULL;
    QP_TRY(read_object(folder, "config.json", &model));
    QP_TRY_DONE(qp_json_string(model, "model_type", "", &type));
    QP_TRY_DONE(qp_json_string(config, "tokenizer_class", "", &name));
    QP_TRY_DONE(qp_json_string(model, "tokenizer_class", "", &of_model));
    if (name[0] == '\0' && of_model[0] != '\0')
        json_object_set_new(config, "tokenizer_class", json_string(of_model));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(type, families[i]) == 0)
            json_object_set_new(config, "tokenizer_class", json_string("TokenizersBackend"));
done:
    json_decref(model);
    return error;
}

/* Puts into the config what the files beside it say. */
static qp_error_t complete_config(const char *folder, qp_tokenizer_files_t *files)
{
    json_t *config = NULL;
    qp_error_t error = NULL;
    QP_TRY(read_object(folder, "tokenizer_config.json", &config));
    if (config == NULL)
        config = json_object();
    json_t *before = json_copy(config);
    if (qp_json_get(config, "added_tokens_decoder") == NULL) {
        QP_TRY_DONE(
            fold_special_tokens(folder, strcmp(files->kind, "tokenizer.model") == 0, config));
        QP_TRY_DONE(fold_added_tokens(folder, files, config));
    }
    QP_TRY_DONE(fold_templates(folder, config));
    QP_TRY_DONE(fold_class(folder, config));
    if (!json_equal(config, before)) {
        qp_free(files->config);
        files->config = qp_json_line(config);
        files->config_bytes = strlen(files->config);
    }
done:
    json_decref(config);
    json_decref(before);
    return error;
}

qp_error_t qp_tokenizer_files_from_folder(const char *folder, qp_tokenizer_files_t *files)
{
    static const char *const kinds[] = {"tokenizer.json", "tokenizer.model"};
    qp_error_t error = NULL;
    *files = (qp_tokenizer_files_t){0};
    for (size_t i = 0; i < 2 && files->model == NULL; i++) {
        snprintf(files->kind, sizeof files->kind, "%s", kinds[i]);
        QP_TRY_DONE(read_file(folder, kinds[i], &files->model, &files->model_bytes));
    }
    if (files->model == NULL) {
        error = QP_ERROR(QP_INPUT, "%s: neither tokenizer.json nor tokenizer.model", folder);
        goto done;
    }
    QP_TRY_DONE(read_file(folder, "tokenizer_config.json", &files->config, &files->config_bytes));
    error = complete_config(folder, files);
done:
    if (error != NULL)
        qp_tokenizer_files_fini(files);
    return error;
}
