/* The one question and answer of a connection of crr_client and crr_server.
 *
 * A question is 8 bytes that say so, a number of 8 bytes, and filler made of the number; the answer has
 * other first bytes and filler made of the number in another way. So an answer to another question, or a
 * question sent back, is no answer. */
#ifndef CRR_H
#define CRR_H

#include "openflow.h"
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { MESSAGE_BYTES = 64 };

static const uint8_t QUESTION[8] = {0x0d, 0x5e, 'c', 'r', 'r', '?', 0, 1};
static const uint8_t ANSWER[8] = {0x0d, 0x5e, 'c', 'r', 'r', '!', 0, 1};

static inline void put_message(uint8_t *message, const uint8_t *kind, uint64_t number, uint8_t step)
{
    memcpy(message, kind, 8);
    put64(message + 8, number);
    for (int i = 16; i < MESSAGE_BYTES; i++)
        message[i] = (uint8_t)(number + (uint64_t)(i * step));
}

static inline void put_question(uint8_t *message, uint64_t number)
{
    put_message(message, QUESTION, number, 3);
}

static inline void put_answer(uint8_t *message, uint64_t number)
{
    put_message(message, ANSWER, number, 5);
}

/* Seconds of processor time of this process, the kernel's part included. */
static inline double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static inline int epoll_or_die(void)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        die("epoll_create1: %s", strerror(errno));
    return fd;
}

static inline void watch_or_die(int epoll, int fd, uint32_t events, uint64_t mark)
{
    struct epoll_event event = {.events = events, .data.u64 = mark};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

#endif
