/*
 * Texts and conversations to token sequences.
 *
 * The border between prompt and completion: both are tokenised as one text, as the model is going
 * to see it, and so is the prompt alone. What the two have in common from the beginning on is the
 * prompt; a token that merges its end with the completion belongs to the completion. The sides of a
 * pair share one border, the lower one, so that both count the same tokens.
 */
#include "prep.h"

#include <string.h>

#include "base/mem.h"

void prep_sequence_fini(prep_sequence_t *sequence)
{
    qp_tokens_fini(&sequence->token);
    qp_tokens_fini(&sequence->learnt);
}

void prep_chat_fini(prep_chat_t *chat)
{
    json_decref(chat->prompt);
    json_decref(chat->answer[0]);
    json_decref(chat->answer[1]);
    json_decref(chat->tools);
    json_decref(chat->variables);
    *chat = (prep_chat_t){0};
}

/* --- strings ---------------------------------------------------------------------------------- */

qp_error_t prep_encode_text(const prep_model_t *model, prep_text_t text, bool parse_special,
                            prep_sequence_t *sequence)
{
    sequence->token.n = sequence->learnt.n = 0;
    QP_TRY(qp_tokenizer_encode_opening(model->tokenizer, text.data, text.n,
                                       parse_special ? QP_TEXT_PARSE_SPECIAL : 0,
                                       &sequence->token));
    for (int64_t i = 0; i < sequence->token.n; i++)
        qp_tokens_push(&sequence->learnt, 1);
    return NULL;
}

/* A completion without the BOS that it begins with: the sequence has one, before the prompt. */
static prep_text_t without_bos(const prep_model_t *model, prep_text_t completion)
{
    if (!qp_tokenizer_adds_bos(model->tokenizer))
        return completion;
    const char *bos = qp_tokenizer_token(model->tokenizer, qp_tokenizer_bos(model->tokenizer));
    const size_t n = strlen(bos);
    if (completion.n < n || memcmp(completion.data, bos, n) != 0)
        return completion;
    return (prep_text_t){completion.data + n, completion.n - n};
}

qp_error_t prep_encode_whole(const prep_model_t *model, prep_text_t prompt, prep_text_t completion,
                             bool parse_special, prep_sequence_t *sequence)
{
    if (parse_special)
        completion = without_bos(model, completion);
    qp_str_t whole = {0};
    qp_str_append(&whole, prompt.data, prompt.n);
    qp_str_append(&whole, completion.data, completion.n);
    qp_error_t error =
        prep_encode_text(model, (prep_text_t){whole.data, whole.n}, parse_special, sequence);
    qp_str_fini(&whole);
    return error;
}

/* --- conversations ---------------------------------------------------------------------------- */

static qp_error_t encode_messages(const prep_model_t *model, const qp_chat_input_t *input,
                                  prep_sequence_t *sequence)
{
    qp_chat_t chat = {0};
    sequence->token.n = sequence->learnt.n = 0;
    qp_error_t error = qp_chat_render(model->chat_template, input, &chat);
    if (error == NULL)
        error = qp_chat_encode(model->tokenizer, &chat, &sequence->token, &sequence->learnt);
    qp_chat_fini(&chat);
    return error;
}

qp_error_t prep_encode_chat_prompt(const prep_model_t *model, const prep_chat_t *chat,
                                   prep_sequence_t *sequence)
{
    const qp_chat_input_t input = {.messages = chat->prompt,
                                   .tools = chat->tools,
                                   .variables = chat->variables,
                                   .add_generation_prompt = true};
    return encode_messages(model, &input, sequence);
}

qp_error_t prep_encode_chat(const prep_model_t *model, const prep_chat_t *chat, int i,
                            prep_sequence_t *sequence)
{
    json_t *all = json_copy(chat->prompt);
    json_array_extend(all, chat->answer[i]);
    const qp_chat_input_t input = {
        .messages = all, .tools = chat->tools, .variables = chat->variables};
    qp_error_t error = encode_messages(model, &input, sequence);
    json_decref(all);
    return error;
}

/* --- sequences -------------------------------------------------------------------------------- */

void prep_sequence_end(const prep_model_t *model, prep_sequence_t *sequence)
{
    const qp_tokens_t own = {.id = (int32_t[]){qp_eos_first(&model->eos)}, .n = model->eos.n > 0};
    const qp_tokens_t *suffix = qp_tokenizer_suffix(model->tokenizer);
    const qp_tokens_t *end = suffix->n > 0 ? suffix : &own;
    const int64_t n = sequence->token.n;
    if (end == &own ? n > 0 && qp_eos_has(&model->eos, sequence->token.id[n - 1])
                    : n >= end->n && memcmp(sequence->token.id + n - end->n, end->id,
                                            qp_bytes(end->n, sizeof *end->id)) == 0)
        return;
    for (int64_t i = 0; i < end->n; i++) {
        qp_tokens_push(&sequence->token, end->id[i]);
        qp_tokens_push(&sequence->learnt, 1);
    }
}

void prep_sequence_cut(const prep_model_t *model, prep_sequence_t *sequence)
{
    int64_t n = sequence->token.n;
    while (n > 0 && sequence->learnt.id[n - 1] == 0)
        n--;
    if (n > 0 && n < sequence->token.n && qp_eos_has(&model->eos, sequence->token.id[n]))
        n++; /* the end of the turn, where the template does not have it learnt */
    if (n > 0)
        sequence->token.n = sequence->learnt.n = n;
}

bool prep_sequence_has_end(const prep_model_t *model, const prep_sequence_t *sequence)
{
    int64_t n = sequence->token.n;
    while (n > 0 && sequence->learnt.id[n - 1] == 0)
        n--;
    return n > 0 && qp_eos_has(&model->eos, sequence->token.id[n - 1]);
}

bool prep_sequence_is_empty(const prep_model_t *model, const prep_sequence_t *sequence)
{
    const int64_t first = qp_tokenizer_adds_bos(model->tokenizer) ? 1 : 0;
    for (int64_t i = first; i < sequence->token.n; i++)
        if (!qp_eos_has(&model->eos, sequence->token.id[i]))
            return false;
    return true;
}

static int64_t n_shared(const qp_tokens_t *a, const qp_tokens_t *b)
{
    int64_t n = 0;
    while (n < a->n && n < b->n && a->id[n] == b->id[n])
        n++;
    return n;
}

void prep_sequence_split(const prep_sequence_t *prompt, prep_sequence_t *sequence, int n_sequence)
{
    int64_t border = prompt->token.n;
    for (int i = 0; i < n_sequence; i++) {
        const int64_t n = n_shared(&prompt->token, &sequence[i].token);
        border = n < border ? n : border;
    }
    for (int i = 0; i < n_sequence; i++)
        for (int64_t t = 0; t < border; t++)
            sequence[i].learnt.id[t] = 0;
}
