#include "prep.h"

#include "base/hash.h"
#include "data/data.h"

prep_answered_t prep_answered(int64_t id, prep_text_t question, prep_text_t answer)
{
    return (prep_answered_t){.id = id,
                             .question = qp_hash_bytes(question.data, question.n),
                             .answer = qp_hash_bytes(answer.data, answer.n)};
}

/* All questions in an order of question i's own: the first that fits is as good as any. */
int64_t prep_other(uint32_t seed, const prep_answered_t *all, int64_t n, int64_t i)
{
    for (int64_t k = 0; k < n; k++) {
        int64_t other = qp_permute(seed, (uint32_t)all[i].id, n, k);
        if (all[other].question != all[i].question && all[other].answer != all[i].answer)
            return other;
    }
    return -1;
}
