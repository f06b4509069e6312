/* QP_TEST: labels=real
 * A real GGUF file (Q4_1) imported as fp32 holds, bit for bit, the weights that transformers reads
 * from it (golden/make_real.py). Skips without QUIPU_REAL. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "import/source.h"
#include "testing.h"

/* Hash of the checksums of all tensors, which qp_h5_list gives in the order of their names. */
static qp_error_t hash_tensors(const char *path, uint64_t *value)
{
    qp_h5_t *file = NULL;
    char **name = NULL;
    int64_t n = 0;
    QP_TRY(qp_h5_open(path, NULL, &file));
    qp_hash_t *hash = qp_hash_create();
    qp_error_t error = qp_h5_list(file, "/tensors", &name, &n);
    for (int64_t i = 0; error == NULL && i < n; i++) {
        char *dataset = qp_format("/tensors/%s", name[i]);
        uint64_t sum = 0;
        error = qp_h5_checksum_verify(file, dataset);
        if (error == NULL)
            error = qp_h5_checksum_get(file, dataset, &sum);
        qp_hash_update(hash, &sum, sizeof sum);
        qp_free(dataset);
    }
    CHECK(n == 272);
    *value = qp_hash_value(hash);
    qp_hash_destroy(&hash);
    qp_h5_list_free(&name, n);
    qp_error_t closing = qp_h5_close(&file);
    if (error == NULL)
        return closing;
    qp_error_destroy(&closing);
    return error;
}

int main(void)
{
    const char *folder = getenv("QUIPU_REAL");
    if (folder == NULL)
        return QP_TEST_SKIP;
    char *from = qp_format("%s/SmolLM2-135M-Instruct.Q4_1.gguf", folder), *golden = NULL;
    char *to = qp_format("%s/real.h5", qp_test_folder());
    qp_source_t *source = NULL;
    size_t n;
    uint64_t found = 0;
    if (CHECK_OK(qp_source_open(from, &source)) &&
        CHECK_OK(qp_source_write_base(source, to, qp_base_kinds(QP_WEIGHT_F32))) &&
        CHECK_OK(hash_tensors(to, &found)) &&
        CHECK_OK(qp_file_read(qp_test_source("tests/golden/real_gguf.txt"), (void **)&golden, &n)))
        CHECK_MSG(found == strtoull(golden, NULL, 16), "found %016lx, expected %s",
                  (unsigned long)found, golden);
    qp_source_close(&source);
    qp_free(golden);
    qp_free(from);
    qp_free(to);
    return qp_test_end();
}
