#include "base/version.h"

/* Both from the build system, for this file alone: a new commit compiles one file. */
#include "revision.h"

const char *qp_version(void)
{
    return QUIPU_VERSION " (" QUIPU_REVISION ")";
}
