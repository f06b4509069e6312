/* An HF folder that appears complete or not at all. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "outputs.h"

/* Removes a folder of plain files; what cannot be removed stays, under its temporary name. */
static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char *file = qp_format("%s/%s", path, entry->d_name);
        unlink(file);
        qp_free(file);
    }
    if (folder != NULL)
        closedir(folder);
    rmdir(path);
}

static qp_error_t fill(qp_source_t *merged, qp_dtype_t dtype, const char *folder)
{
    QP_TRY(qp_source_write_hf(merged, folder, dtype, QP_HF_SHARD_BYTES));
    const qp_tokenizer_files_t *tokenizer = qp_source_tokenizer(merged);
    return tokenizer->kind[0] != '\0' ? qp_tokenizer_files_to_folder(tokenizer, folder) : NULL;
}

qp_error_t qp_merge_write_hf(qp_source_t *merged, qp_dtype_t dtype, const char *folder)
{
    char *temporary = qp_format("%s.part", folder);
    remove_folder(temporary); /* of a run that was killed */
    qp_error_t error = NULL;
    if (mkdir(temporary, 0777) != 0)
        error = QP_ERROR(QP_IO, "%s: cannot be made: %s", temporary, strerror(errno));
    if (error == NULL)
        error = fill(merged, dtype, temporary);
    if (error == NULL)
        error = qp_file_commit(temporary, folder);
    if (error != NULL)
        remove_folder(temporary);
    qp_free(temporary);
    return error;
}
