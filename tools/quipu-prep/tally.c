/*
 * What is read and what is left out, by reason, with the first place of each. Every rank counts its
 * own share; the sum and the place with the lowest id do not depend on the rank count.
 */
#include "prep.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"

static const struct {
    bool bad;
    const char *text;
} skips[] = {
#define PREP_SKIP_ROW(id, bad, text) [id] = {bad, text},
    PREP_SKIPS(PREP_SKIP_ROW)
#undef PREP_SKIP_ROW
};

void prep_tally_skip(prep_tally_t *tally, prep_skip_t why, const prep_origin_t *origin,
                     const char *detail)
{
    if (tally->skip[why].n++ > 0 && tally->skip[why].first <= origin->id)
        return;
    qp_str_t place = {0};
    qp_str_printf(&place, origin->unit != NULL ? "%s: %s %lld" : "%s%s:%lld", origin->path,
                  origin->unit != NULL ? origin->unit : "", (long long)origin->number);
    if (detail != NULL)
        qp_str_printf(&place, ": %s", detail);
    qp_free(tally->skip[why].place);
    tally->skip[why].place = place.data;
    tally->skip[why].first = origin->id;
}

/* The rank that met the first one of all, the lowest of several; -1: nobody did. */
static int owner_of_first(qp_comm_t *comm, const int64_t *first, int why)
{
    int owner = -1;
    for (int rank = 0; rank < qp_comm_size(comm); rank++) {
        const int64_t own = first[rank * PREP_N_SKIP + why];
        if (own < INT64_MAX && (owner < 0 || own < first[owner * PREP_N_SKIP + why]))
            owner = rank;
    }
    return owner;
}

void prep_tally_reduce(qp_comm_t *comm, prep_tally_t *tally)
{
    int64_t n[PREP_N_SKIP], own[PREP_N_SKIP];
    for (int why = 0; why < PREP_N_SKIP; why++) {
        n[why] = tally->skip[why].n;
        own[why] = n[why] > 0 ? tally->skip[why].first : INT64_MAX;
    }
    int64_t *first = QP_NEW("prep", int64_t, (int64_t)PREP_N_SKIP * qp_comm_size(comm));
    qp_comm_allgather(comm, own, PREP_N_SKIP, QP_I64, first);
    qp_comm_sum_i64(comm, n, PREP_N_SKIP);
    qp_comm_sum_i64(comm, tally->count, PREP_N_COUNT);
    for (int why = 0; why < PREP_N_SKIP; why++) {
        const int owner = owner_of_first(comm, first, why);
        tally->skip[why].n = n[why];
        if (owner < 0)
            continue;
        void *place = NULL;
        size_t n_bytes = 0;
        if (owner == qp_comm_rank(comm)) {
            place = tally->skip[why].place;
            n_bytes = strlen(place) + 1;
        } else {
            QP_FREE(tally->skip[why].place);
        }
        qp_comm_bcast_block(comm, &place, &n_bytes, owner);
        tally->skip[why].place = place;
        tally->skip[why].first = first[owner * PREP_N_SKIP + why];
    }
    qp_free(first);
}

static void describe_skip(const prep_tally_t *tally, int why, qp_str_t *text)
{
    qp_str_printf(text, "%lld skipped: %s (first: %s)", (long long)tally->skip[why].n,
                  skips[why].text, tally->skip[why].place);
}

void prep_tally_describe(const prep_tally_t *tally, qp_str_t *text)
{
    for (int why = 0; why < PREP_N_SKIP; why++)
        if (tally->skip[why].n > 0) {
            qp_str_puts(text, "; ");
            describe_skip(tally, why, text);
        }
}

void prep_tally_log(const prep_tally_t *tally)
{
#define PREP_COUNT_TEXT(id, text) text,
    static const char *const count_text[] = {PREP_COUNTS(PREP_COUNT_TEXT)};
#undef PREP_COUNT_TEXT
    for (int i = 0; i < PREP_N_COUNT; i++)
        if (tally->count[i] > 0)
            qp_log_info("%lld %s", (long long)tally->count[i], count_text[i]);
    for (int why = 0; why < PREP_N_SKIP; why++)
        if (tally->skip[why].n > 0) {
            qp_str_t text = {0};
            describe_skip(tally, why, &text);
            qp_log_info("%s", text.data);
            qp_str_fini(&text);
        }
}

qp_error_t prep_tally_judge(const prep_tally_t *tally, const char *source, double max_bad)
{
    int64_t n_unit = 0, n_bad = 0;
    for (int i = 0; i < PREP_N_UNIT; i++)
        n_unit += tally->count[i];
    for (int why = 0; why < PREP_N_SKIP; why++)
        n_bad += skips[why].bad ? tally->skip[why].n : 0;
    if ((double)n_bad <= max_bad * (double)n_unit || (n_bad == 1 && max_bad > 0.0))
        return NULL;
    qp_str_t reasons = {0};
    prep_tally_describe(tally, &reasons);
    qp_error_t error = QP_ERROR(
        QP_INPUT,
        "%s: %lld of %lld are bad, more than --max-bad %g; a larger share leaves them out%s",
        source, (long long)n_bad, (long long)n_unit, max_bad, reasons.data);
    qp_str_fini(&reasons);
    return error;
}

void prep_tally_fini(prep_tally_t *tally)
{
    for (int why = 0; why < PREP_N_SKIP; why++)
        qp_free(tally->skip[why].place);
    *tally = (prep_tally_t){0};
}
