/**
 * \file philox.cuh
 * Philox 4x32-10 (Salmon et al. 2011, section 3.3) in kernels: the numbers of base/philox.h.
 */
#ifndef QP_CUDA_CORE_PHILOX_CUH
#define QP_CUDA_CORE_PHILOX_CUH

#include "cuda/core/number.cuh"

/** As qp_philox(). */
static __device__ inline void qp_philox_words(const qp_philox_key_t &key, uint32_t block,
                                              uint32_t (&out)[4])
{
    uint32_t c0 = key.sample, c1 = key.position, c2 = key.site, c3 = block;
    uint32_t k0 = key.seed, k1 = key.step;
    for (int round = 0; round < 10; round++) {
        const uint32_t a_low = c0 * 0xD2511F53u, a_high = __umulhi(c0, 0xD2511F53u);
        const uint32_t b_low = c2 * 0xCD9E8D57u, b_high = __umulhi(c2, 0xCD9E8D57u);
        c0 = b_high ^ c1 ^ k0;
        c1 = b_low;
        c2 = a_high ^ c3 ^ k1;
        c3 = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

#endif
