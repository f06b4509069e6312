/**
 * \file compare.h
 * Held-out queries answered and rewarded: how good a policy is, how much better the best of n of
 * its answers, and how often it beats another. Length and repetition stand beside the rewards,
 * since a policy may have learned what the reward model likes rather than what it means.
 */
#ifndef QP_TRAIN_METHODS_COMPARE_H
#define QP_TRAIN_METHODS_COMPARE_H

#include "train/run/run.h"

/** Of all answers of one policy. */
typedef struct {
    int64_t n_query, n_draw;     /**< answers to each query */
    double reward, reward_error; /**< mean, and its standard error over queries */
    double best;                 /**< mean over queries of the best of their n_draw rewards */
    double length;               /**< mean tokens of a response */
    double repetition;           /**< mean share of a response's 3-grams that stood in it before */
    double stopped;              /**< share that ended with EOS */
} qp_answer_statistics_t;

/** How a policy's answers are taken. */
typedef struct {
    const char *name; /**< of the policy, in the lines */
    int64_t n_draw;   /**< answers to each query */
    qp_str_t *lines;  /**< gets a line of answers.jsonl for each answer; NULL: none wanted */
} qp_answering_t;

/**
 * Answers the queries of data.eval (data.eval_rows of them) n_draw times, with rewards from
 * run->given.scorer. reward [n_query, n_draw], caller's (qp_free). The same on any number of ranks.
 * Collective.
 */
qp_error_t qp_reward_answers(qp_run_t *run, const qp_role_t *role, const qp_answering_t *how,
                             double **reward, qp_answer_statistics_t *statistics);

/**
 * Of a against b [n_query, n_draw], answer by answer; ties count half. Answers to one query are no
 * sample of their own: the 95% intervals (Wilson 1927 for the rate, Student's for the difference,
 * query by query) and the error are those of n_query queries. One query has no interval: infinite.
 */
typedef struct {
    double win_rate, win_low, win_high;
    double difference, difference_error, difference_low, difference_high; /**< of mean rewards */
} qp_win_rate_t;
qp_win_rate_t qp_win_rate(const double *a, const double *b, int64_t n_query, int64_t n_draw);

/** Means and more as lines of the log, and as one more member of the JSON object in \a json. */
void qp_compare_report(const char *name, const qp_answer_statistics_t *statistics, json_t *json);

#endif
