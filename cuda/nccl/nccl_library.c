#include "cuda/nccl/nccl_library.h"

/* Names of the library, the best first. */
#ifdef QP_NCCL_SONAME
static const char *const names[] = {QP_NCCL_SONAME};
#else
static const char *const names[] = {"libnccl.so.2"};
#endif

static qp_error_t find_all(qp_nccl_t *nccl)
{
#define FIND(name) QP_TRY(qp_library_find(&nccl->library, #name, &nccl->name, sizeof nccl->name));
    QP_NCCL_FUNCTIONS(FIND)
#undef FIND
    return NULL;
}

qp_error_t qp_nccl_open(qp_nccl_t *nccl)
{
    *nccl = (qp_nccl_t){.library = {.what = "NVIDIA's library NCCL",
                                    .name = names,
                                    .n_name = sizeof names / sizeof *names}};
    QP_TRY(qp_library_open(&nccl->library));
    const qp_error_t error = find_all(nccl);
    if (error != NULL)
        qp_nccl_close(nccl);
    return error;
}

void qp_nccl_close(qp_nccl_t *nccl)
{
    qp_library_close(&nccl->library);
}
