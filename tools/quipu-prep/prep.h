/**
 * \file prep.h
 * Inside of quipu-prep. A source (a dump, JSONL, HTML or text files) walks its input on every rank
 * and hands the samples of this rank's share to the sink, which tokenises them, splits them into
 * train and eval, and writes one shard per kind, split and rank. Which samples there are and where
 * they go does not depend on the rank count; only the number of shards does.
 */
#ifndef QUIPU_PREP_H
#define QUIPU_PREP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
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
    const char *out;              /**< prefix of the shards */
    const char *const *file;      /**< [n_file] inputs */
    int n_file;
    bool kind[PREP_N_KIND]; /**< wanted */
    double eval_fraction;
    uint32_t seed;
    int64_t max_tokens; /**< longer samples are left out; 0: no limit */
    int64_t max_pairs;  /**< per question */
    int answers;        /**< prep_answers_t */
    int pairs;          /**< prep_pairs_t */
    bool with_title;
} prep_options_t;

/** What is counted; the text completes "N ...". */
#define PREP_COUNTS(X)                                                                 \
    X(PREP_POSTS, "posts read")                                                        \
    X(PREP_QUESTIONS, "questions")                                                     \
    X(PREP_ANSWERS, "answers")                                                         \
    X(PREP_PAIRS, "pairs of answers")                                                  \
    X(PREP_ROWS, "rows")                                                               \
    X(PREP_DOCUMENTS, "documents")                                                     \
    X(PREP_OTHER_POSTS, "skipped: posts that are neither question nor answer")         \
    X(PREP_ORPHANS, "skipped: answers without their question")                         \
    X(PREP_EMPTY_QUESTIONS, "skipped: questions without text")                         \
    X(PREP_EMPTY_ANSWERS, "skipped: answers without text")                             \
    X(PREP_EMPTY_ROWS, "skipped: rows or documents without text")                      \
    X(PREP_UNPAIRED, "questions without a pair: no other question has another answer") \
    X(PREP_UNWANTED, "skipped: rows of a kind that --kinds leaves out")                \
    X(PREP_TOO_LONG, "skipped: samples longer than --max-tokens")

#define PREP_COUNT_ENUM(id, text) id,
typedef enum { PREP_COUNTS(PREP_COUNT_ENUM) PREP_N_COUNT } prep_count_t;
#undef PREP_COUNT_ENUM

/** Where samples go. */
typedef struct prep_sink prep_sink_t;

/** A text of n bytes. */
typedef struct {
    const char *data;
    size_t n;
} prep_text_t;

/**
 * Refuses (QP_INPUT) when shards of another rank count stand under the same prefix. Collective; the
 * tokenizer must outlive the sink.
 */
qp_error_t prep_sink_create(qp_comm_t *comm, const prep_options_t *options,
                            const qp_tokenizer_t *tokenizer, const char *source,
                            prep_sink_t **sink);
/** Without a commit before, nothing is left on disk. */
void prep_sink_destroy(prep_sink_t **sink);
/** Gives all shards of all ranks their names, or none; then logs counts and token statistics.
 * Collective. */
qp_error_t prep_sink_commit(prep_sink_t *sink);

bool prep_sink_wants(const prep_sink_t *sink, prep_kind_t kind);
void prep_sink_count(prep_sink_t *sink, prep_count_t what, int64_t n);

/*
 * Samples; \a id decides the split, so all kinds of a question share one. BOS comes first where the
 * tokenizer has that rule; texts and completions end with EOS; prompts do not. parse_special: text
 * like "<|im_end|>" is that token. What is too long, and texts and prompts without a token of their
 * own, are counted and left out.
 */
qp_error_t prep_sink_text(prep_sink_t *sink, int64_t id, prep_text_t text, bool parse_special);
qp_error_t prep_sink_completion(prep_sink_t *sink, int64_t id, prep_text_t prompt,
                                prep_text_t completion, bool parse_special);
qp_error_t prep_sink_pair(prep_sink_t *sink, int64_t id, float margin, prep_text_t prompt,
                          const prep_text_t answer[2], bool parse_special);
qp_error_t prep_sink_prompt(prep_sink_t *sink, int64_t id, prep_text_t prompt, bool parse_special);
qp_error_t prep_sink_chat(prep_sink_t *sink, int64_t id, const qp_chat_message_t *message,
                          int64_t n_message);

/** Sources: read every file, emit this rank's share. Rank-local. */
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

/** The template of all stages: "Question: <question>\n\nAnswer: " (qp_free). */
char *prep_question(prep_text_t question);

#endif
