#include "base/philox.h"

#include <math.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <Random123/philox.h>
#pragma GCC diagnostic pop

void qp_philox(const qp_philox_key_t *key, uint32_t block, uint32_t out[4])
{
    philox4x32_ctr_t counter = {{key->sample, key->position, key->site, block}};
    philox4x32_key_t k = {{key->seed, key->step}};
    philox4x32_ctr_t r = philox4x32(counter, k);
    for (int i = 0; i < 4; i++)
        out[i] = r.v[i];
}

float qp_philox_uniform(const qp_philox_key_t *key, uint64_t index)
{
    uint32_t words[4];
    qp_philox(key, (uint32_t)(index / 4), words);
    return (float)(words[index % 4] >> 8) * 0x1p-24f;
}

float qp_philox_normal(const qp_philox_key_t *key, uint64_t index)
{
    uint32_t words[4];
    qp_philox(key, (uint32_t)(index / 4), words);
    const uint32_t *pair = words + 2 * (index % 4 / 2);
    double u = ((double)pair[0] + 1.0) * 0x1p-32;
    double angle = 2.0 * M_PI * (double)pair[1] * 0x1p-32;
    double radius = sqrt(-2.0 * log(u));
    return (float)(radius * (index % 2 ? sin(angle) : cos(angle)));
}
