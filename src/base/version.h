/** \file version.h  The build's identity, written into every output. */
#ifndef QP_BASE_VERSION_H
#define QP_BASE_VERSION_H

/** "0.1.0 (1a2b3c4)": version and revision. Static. */
const char *qp_version(void);

#endif
