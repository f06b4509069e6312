/**
 * \file prep.h
 * Inside of quipu-prep. A source (a dump, JSONL, HTML or text files) walks its input on every rank
 * and hands the samples of this rank's share to the sink, which tokenises them, splits them into
 * train and eval, and writes one shard per kind, split and rank. Which samples there are and where
 * they go does not depend on the rank count; only the number of shards does.
 */
#ifndef QUIPU_PREP_H
#define QUIPU_PREP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/eos.h"
#include "base/error.h"
#include "base/str.h"
#include "comm/comm.h"
#include "text/chat.h"
#include "text/tokenizer.h"

typedef enum { PREP_SFT, PREP_REWARD, PREP_PROMPT, PREP_N_KIND } prep_kind_t;

/** Which answers of a question become SFT samples. */
typedef enum {
    PREP_ANSWERS_BETTER, /**< the better answer of each of the question's pairs, once */
    PREP_ANSWERS_BEST,   /**< the one with the highest score */
    PREP_ANSWERS_ALL     /**< all that were not voted below zero */
} prep_answers_t;

/** Which pairs of answers are made. */
typedef enum {
    PREP_PAIRS_SCORES,    /**< two answers of a question with different scores */
    PREP_PAIRS_MISMATCHED /**< a question's best answer and that of another question */
} prep_pairs_t;

typedef struct {
    const char *base, *tokenizer; /**< where the tokenizer is: base.h5 or HF folder */
    const char *chat_template;    /**< file; NULL: the tokenizer's own */
    const char *out;              /**< prefix of the shards */
    const char *const *file;      /**< [n_file] inputs */
    int n_file;
    bool kind[PREP_N_KIND]; /**< wanted */
    double eval_fraction;
    uint32_t seed;
    double max_bad;     /**< share of the rows that may be bad */
    int64_t max_tokens; /**< longer samples are left out; 0: no limit */
    int64_t max_pairs;  /**< per question */
    int answers;        /**< prep_answers_t */
    int pairs;          /**< prep_pairs_t */
    bool with_title;
} prep_options_t;

/** A text of n bytes. */
typedef struct {
    const char *data;
    size_t n;
} prep_text_t;

/* --- what is read and what is left out -------------------------------------------------------- */

/** What is counted; the text completes "N ...". The units of the input come first. */
#define PREP_COUNTS(X)                                                                  \
    X(PREP_POSTS, "posts read")                                                         \
    X(PREP_ROWS, "rows")                                                                \
    X(PREP_DOCUMENTS, "documents")                                                      \
    X(PREP_QUESTIONS, "questions")                                                      \
    X(PREP_ANSWERS, "answers")                                                          \
    X(PREP_PAIRS, "pairs of answers")                                                   \
    X(PREP_DROPPED, "characters dropped that XML forbids")                              \
    X(PREP_NO_EOS,                                                                      \
      "conversations whose template writes no end-of-sequence token behind the answer") \
    X(PREP_UNPAIRED, "questions without a pair: no other question has another answer")

#define PREP_COUNT_ENUM(id, text) id,
typedef enum { PREP_COUNTS(PREP_COUNT_ENUM) PREP_N_COUNT } prep_count_t;
#undef PREP_COUNT_ENUM
enum { PREP_N_UNIT = PREP_DOCUMENTS + 1 };

/**
 * Why a row, post or sample is left out; the text completes "N skipped: ...". Bad ones cannot be
 * used as they stand, and count against --max-bad; the others give nothing to learn, or were not
 * asked for.
 */
#define PREP_SKIPS(X)                                                                             \
    X(PREP_NOT_JSON, true, "not JSON")                                                            \
    X(PREP_TOO_DEEP, true, "rows of JSON that nest too deep to be read")                          \
    X(PREP_NO_FORM, true, "rows of no known form")                                                \
    X(PREP_WRONG_TYPE, true, "rows with a value of the wrong type")                               \
    X(PREP_BAD_ROLE, true, "conversations with an unknown role")                                  \
    X(PREP_NO_TEMPLATE, true, "conversations that the chat template does not take")               \
    X(PREP_NOT_UTF8, true, "documents that are not UTF-8")                                        \
    X(PREP_NOT_XML, true, "damaged rows")                                                         \
    X(PREP_BAD_POST, true, "posts with an attribute missing or wrong")                            \
    X(PREP_BAD_HTML, true, "posts or pages whose HTML cannot be read to its end")                 \
    X(PREP_REPEATED, true, "posts with the Id of another")                                        \
    X(PREP_BEYOND_MODEL, true, "samples with a token that the model does not have")               \
    X(PREP_OTHER_POSTS, false, "posts that are neither question nor answer")                      \
    X(PREP_ORPHANS, false, "answers without their question")                                      \
    X(PREP_EMPTY_QUESTIONS, false, "questions without text")                                      \
    X(PREP_EMPTY_ANSWERS, false, "answers without text")                                          \
    X(PREP_EMPTY_ROWS, false, "rows or documents without text")                                   \
    X(PREP_NO_ANSWER, false, "conversations without an answer, or with an empty one")             \
    X(PREP_NOT_MARKED, false, "conversations of which the chat template marks nothing as learnt") \
    X(PREP_NO_TARGET, false, "samples in which nothing is learnt")                                \
    X(PREP_EQUAL_ANSWERS, false, "pairs of equal answers")                                        \
    X(PREP_UNWANTED, false, "rows of a kind that --kinds leaves out")                             \
    X(PREP_TOO_LONG, false, "samples longer than --max-tokens")

#define PREP_SKIP_ENUM(id, bad, text) id,
typedef enum { PREP_SKIPS(PREP_SKIP_ENUM) PREP_N_SKIP } prep_skip_t;
#undef PREP_SKIP_ENUM

/** Where something stands in the input, and what is the same for all samples of it. */
typedef struct {
    int64_t id; /**< of the question, or number of the row: stored with samples; of what is
                     left out for a reason, the one with the lowest is shown */
    const char *path;
    const char *unit; /**< what is numbered, "post"; NULL: lines of the file */
    int64_t number;
    uint64_t group;     /**< prep_group(): samples of one group stand on one side of the split */
    bool parse_special; /**< text like "<|im_end|>" is that token */
} prep_origin_t;

/** The counts of one run; zero-initialise. */
typedef struct {
    int64_t count[PREP_N_COUNT];
    struct {
        int64_t n, first;
        char *place; /**< of the first, and what is wrong there; owned */
    } skip[PREP_N_SKIP];
} prep_tally_t;

/** Counts something that is left out; \a detail may be NULL. */
void prep_tally_skip(prep_tally_t *tally, prep_skip_t why, const prep_origin_t *origin,
                     const char *detail);
/** Makes it the tally of all ranks, the same for any number of them. Collective. */
void prep_tally_reduce(qp_comm_t *comm, prep_tally_t *tally);
/** QP_INPUT with the reasons if more than this share of the input is bad. One bad row is always
 * let pass, unless the share is 0. Of a reduced tally. */
qp_error_t prep_tally_judge(const prep_tally_t *tally, const char *source, double max_bad);
/** "; 3 skipped: not JSON (first: ...); ..." */
void prep_tally_describe(const prep_tally_t *tally, qp_str_t *text);
void prep_tally_log(const prep_tally_t *tally);
void prep_tally_fini(prep_tally_t *tally);

/* --- the model that the samples are for ------------------------------------------------------- */

/** What is known of it. */
typedef struct {
    qp_tokenizer_t *tokenizer;
    int64_t n_vocab; /**< ids of the model; the tokenizer's where no config is known */
    qp_eos_t eos;    /**< all that end a sequence; the first is put behind samples */
    /** How conversations become text; NULL: not at all, for the reason of no_chat. */
    qp_chat_template_t *chat_template;
    char *no_chat;
} prep_model_t;

/** Reads tokenizer and config of base or folder, and the chat template. Rank-local. */
qp_error_t prep_model_load(const prep_options_t *options, prep_model_t *model);
void prep_model_fini(prep_model_t *model);

/* --- samples ---------------------------------------------------------------------------------- */

/** A conversation: what is given, and one answer or (pairs) two. Arrays of messages; owned. */
typedef struct {
    json_t *prompt; /**< may be empty: then every assistant turn of the answer is learnt */
    json_t *answer[2];
    json_t *tools;     /**< array, or NULL */
    json_t *variables; /**< object, or NULL */
} prep_chat_t;

void prep_chat_fini(prep_chat_t *chat);

/** One sequence of a sample. */
typedef struct {
    qp_tokens_t token;
    qp_tokens_t learnt; /**< 0 or 1 per token */
} prep_sequence_t;

void prep_sequence_fini(prep_sequence_t *sequence);

/*
 * Texts to sequences, which are replaced. Nothing but errors of the tokenizer (strings), and what
 * the template refuses (conversations): QP_INPUT.
 */
/** BOS first where the tokenizer has that rule, once; all is learnt. */
qp_error_t prep_encode_text(const prep_model_t *model, prep_text_t text, bool parse_special,
                            prep_sequence_t *sequence);
/** Prompt and completion as one text, as the model is going to see it. */
qp_error_t prep_encode_whole(const prep_model_t *model, prep_text_t prompt, prep_text_t completion,
                             bool parse_special, prep_sequence_t *sequence);
/** The prompt of a conversation, with the opening of an answer; and the whole with answer i,
 * assistant turns learnt. */
qp_error_t prep_encode_chat_prompt(const prep_model_t *model, const prep_chat_t *chat,
                                   prep_sequence_t *sequence);
qp_error_t prep_encode_chat(const prep_model_t *model, const prep_chat_t *chat, int i,
                            prep_sequence_t *sequence);
/** Puts what the tokenizer's post-processor puts behind a text, else EOS, behind it, learnt; not
 * where it, or a token that ends a sequence, stands there already. */
void prep_sequence_end(const prep_model_t *model, prep_sequence_t *sequence);
/** Takes off what a template writes behind the end of the last answer (ChatML: a line end): rewards
 * are read at the last token, and no answer goes beyond that end. */
void prep_sequence_cut(const prep_model_t *model, prep_sequence_t *sequence);
/** A token that ends a sequence is the last one learnt. */
bool prep_sequence_has_end(const prep_model_t *model, const prep_sequence_t *sequence);
/** Nothing of its own between BOS and EOS. */
bool prep_sequence_is_empty(const prep_model_t *model, const prep_sequence_t *sequence);
/** Learns nothing before the border: how many tokens all sequences share with the prompt alone. */
void prep_sequence_split(const prep_sequence_t *prompt, prep_sequence_t *sequence, int n_sequence);

/** Where samples go. */
typedef struct prep_sink prep_sink_t;

/**
 * Refuses (QP_INPUT) when shards of another rank count stand under the same prefix, or folders in
 * the places of the shards; QP_IO where no shard can be made. Collective; the model must outlive
 * the sink.
 */
qp_error_t prep_sink_create(qp_comm_t *comm, const prep_options_t *options,
                            const prep_model_t *model, const char *source, prep_sink_t **sink);
/** Without a commit before, nothing is left on disk. */
void prep_sink_destroy(prep_sink_t **sink);
/**
 * Gives all shards of all ranks their names, or none; then logs counts and token statistics. Too
 * many bad rows, or no sample at all: QP_INPUT. Collective.
 */
qp_error_t prep_sink_commit(prep_sink_t *sink);

bool prep_sink_wants(const prep_sink_t *sink, prep_kind_t kind);
/** Conversations can be rendered, or (false) there is no template; one that cannot be used counts
 * as one: it refuses them. */
bool prep_sink_has_template(const prep_sink_t *sink);
/** What is read and left out, to be counted. */
prep_tally_t *prep_sink_tally(prep_sink_t *sink);

/*
 * Samples. BOS comes first where the tokenizer has that rule, once; texts and completions end with
 * EOS, once; prompts do not. A completion is learnt from the first token on in which it differs
 * from the prompt alone; of a pair, both sides from the same token on. What gives no sample is
 * counted.
 */
qp_error_t prep_sink_text(prep_sink_t *sink, const prep_origin_t *origin, prep_text_t text);
qp_error_t prep_sink_completion(prep_sink_t *sink, const prep_origin_t *origin, prep_text_t prompt,
                                prep_text_t completion);
qp_error_t prep_sink_pair(prep_sink_t *sink, const prep_origin_t *origin, float margin,
                          prep_text_t prompt, const prep_text_t answer[2]);
qp_error_t prep_sink_prompt(prep_sink_t *sink, const prep_origin_t *origin, prep_text_t prompt);
/** The same of conversations, by the chat template; assistant turns are learnt. */
qp_error_t prep_sink_chat(prep_sink_t *sink, const prep_origin_t *origin, prep_kind_t kind,
                          const prep_chat_t *chat);

/* --- sources ---------------------------------------------------------------------------------- */

/** Reads every file and emits this rank's share. Rank-local. */
typedef qp_error_t prep_source_t(const prep_options_t *options, int rank, int n_rank,
                                 prep_sink_t *sink);
prep_source_t prep_stackexchange, prep_jsonl, prep_text, prep_html;

/* Pairs where nothing rates the answers: a question's answer against that of another question. */

/** A question that has an answer, by the hashes of the two texts. */
typedef struct {
    int64_t id;
    uint64_t question, answer;
} prep_answered_t;

prep_answered_t prep_answered(int64_t id, prep_text_t question, prep_text_t answer);
/**
 * The question among all [n] whose answer is set against that of question i: neither question nor
 * answer has the same text. A function of seed, list and i alone; -1: there is none.
 */
int64_t prep_other(uint32_t seed, const prep_answered_t *all, int64_t n, int64_t i);

/** QP_IO if SIGINT or SIGTERM is pending (both are blocked from the start of the program). */
qp_error_t prep_check_interrupt(void);

/** White space of both ends taken off. */
prep_text_t prep_trim(prep_text_t text);
/** Samples whose question or prompt is the same text, but for white space around it, are a group.
 */
uint64_t prep_group(prep_text_t text);

/** The template of all stages: "Question: <question>\n\nAnswer: " (qp_free). */
char *prep_question(prep_text_t question);

#endif
