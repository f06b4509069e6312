/** \file device_deck.h  The deck group "device"; fills a qp_device_config_t. */
#ifndef QP_COMPUTE_DEVICE_DECK_H
#define QP_COMPUTE_DEVICE_DECK_H

#include "deck/deck.h"

extern const qp_deck_group_t qp_device_deck;

#endif
