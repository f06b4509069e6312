#include "comm/mpi_check.h"

#include "base/log.h"

qp_error_t qp_mpi_check(int status, const char *call, const char *file, int line)
{
    if (status == MPI_SUCCESS)
        return NULL;
    char text[MPI_MAX_ERROR_STRING] = "unknown MPI error";
    int length = 0;
    (void)MPI_Error_string(status, text, &length); /* on failure the text above stays */
    return qp_error_create(QP_INTERNAL, file, line, "%s: %s", call, text);
}

void qp_mpi_must(int status, const char *call, const char *file, int line)
{
    qp_error_t error = qp_mpi_check(status, call, file, line);
    if (error == NULL)
        return;
    qp_log_error_here("%s (%s:%d): the job ends", error->message, file, line);
    MPI_Abort(MPI_COMM_WORLD, QP_INTERNAL);
}

MPI_Datatype qp_mpi_type(qp_dtype_t dtype)
{
    const MPI_Datatype types[QP_N_DTYPE] = {
        [QP_F32] = MPI_FLOAT,    [QP_BF16] = MPI_UINT16_T, [QP_F16] = MPI_UINT16_T,
        [QP_F64] = MPI_DOUBLE,   [QP_I8] = MPI_INT8_T,     [QP_U8] = MPI_UINT8_T,
        [QP_I32] = MPI_INT32_T,  [QP_U32] = MPI_UINT32_T,  [QP_I64] = MPI_INT64_T,
        [QP_U64] = MPI_UINT64_T,
    };
    return types[dtype];
}
