#include <math.h>

#include "base/mem.h"
#include "model/base_file.h"

/* fp32 arithmetic, as the models were trained with. The llama3 rule keeps short wavelengths,
 * divides long ones by the factor and blends between. */
void qp_llama_rope_frequencies(const qp_llama_config_t *c, float *frequency)
{
    const float two_pi = 6.28318530717958647692f;
    float factor = (float)c->rope_factor;
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)c->head_dim;
        float f = 1.0f / powf((float)c->rope_theta, exponent);
        if (c->rope_scaling == QP_ROPE_LINEAR) {
            f /= factor;
        } else if (c->rope_scaling == QP_ROPE_LLAMA3) {
            float low = (float)c->rope_low_freq_factor, high = (float)c->rope_high_freq_factor;
            float original = (float)c->rope_original_max_position, wavelength = two_pi / f;
            float smooth = (original / wavelength - low) / (high - low);
            if (wavelength > original / low)
                f = f / factor;
            else if (wavelength >= original / high)
                f = (1.0f - smooth) * f / factor + smooth * f;
        }
        frequency[i] = f;
    }
}

void qp_llama_rope_table(const qp_llama_config_t *config, int64_t n_position, float *table)
{
    int64_t half = config->head_dim / 2;
    float *frequency = QP_NEW("rope", float, half);
    qp_llama_rope_frequencies(config, frequency);
    for (int64_t p = 0; p < n_position; p++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)((float)p * frequency[i]);
            table[p * config->head_dim + i] = (float)cos(angle);
            table[p * config->head_dim + half + i] = (float)sin(angle);
        }
    qp_free(frequency);
}
