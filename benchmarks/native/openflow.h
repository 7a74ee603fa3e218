/* What the fake switch and the null responder share: OpenFlow 1.3 framing over a TCP socket.
 *
 * Offsets are those of OpenFlow 1.3.5, sections 7.1 (header), 7.3.4.1 (flow-mod), 7.3.7 (packet-out),
 * 7.4.1 (packet-in). */
#ifndef OPENFLOW_H
#define OPENFLOW_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    OFP_VERSION = 4,
    OFP_HEADER = 8,
    OFPT_HELLO = 0,
    OFPT_ERROR = 1,
    OFPT_ECHO_REQUEST = 2,
    OFPT_ECHO_REPLY = 3,
    OFPT_FEATURES_REQUEST = 5,
    OFPT_FEATURES_REPLY = 6,
    OFPT_GET_CONFIG_REQUEST = 7,
    OFPT_GET_CONFIG_REPLY = 8,
    OFPT_SET_CONFIG = 9,
    OFPT_PACKET_IN = 10,
    OFPT_FLOW_REMOVED = 11,
    OFPT_PACKET_OUT = 13,
    OFPT_FLOW_MOD = 14,
    OFPT_GROUP_MOD = 15,
    OFPT_MULTIPART_REQUEST = 18,
    OFPT_MULTIPART_REPLY = 19,
    OFPT_BARRIER_REQUEST = 20,
    OFPT_BARRIER_REPLY = 21,
    OFPT_ROLE_REQUEST = 24,
    OFPT_ROLE_REPLY = 25,
    OFPT_SET_ASYNC = 28,
    OFPT_METER_MOD = 29,
};

/* OXM headers (class, field, mask, length), as Open vSwitch writes them; ovs-fields(7). */
#define OXM_IN_PORT 0x80000004u
#define OXM_ETH_DST 0x80000606u
#define OXM_ETH_TYPE 0x80000a02u
#define OXM_IPV4_SRC 0x80001604u
#define OXM_IPV4_DST 0x80001804u
#define OXM_TCP_SRC 0x80001a02u
#define OXM_TCP_DST 0x80001c02u
#define OXM_IP_PROTO 0x80001401u
#define NXM_REG5 0x00010a04u
#define NXM_REG6 0x00010c04u
#define NXM_TUN_DST 0x00014004u
#define NXM_CT_STATE_MASKED 0x0001d308u
#define NXM_CT_ZONE 0x0001d402u
#define NXM_CT_NW_SRC 0x0001f004u
#define NXM_CT_NW_DST 0x0001f204u
#define NXM_CT_NW_PROTO 0x0001ee01u
#define NXM_CT_TP_SRC 0x0001f802u
#define NXM_CT_TP_DST 0x0001fa02u

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }

static inline void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)(v >> 16));
    put16(p + 2, (uint16_t)v);
}

static inline void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (memory == NULL)
        die("no memory for %zu items of %zu bytes", count, size);
    return memory;
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A connection: what was read and not yet handled, what is to be written and not yet written. */
struct connection {
    int fd;
    uint8_t *in;
    size_t in_start, in_end;
    uint8_t *out;
    size_t out_start, out_end;
};

enum { IN_BYTES = 1 << 20, OUT_BYTES = 1 << 22 };

static inline void connection_init(struct connection *c, int fd)
{
    int one = 1;
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->in = allocate(IN_BYTES, 1);
    c->out = allocate(OUT_BYTES, 1);
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("the connection cannot be set up: %s", strerror(errno));
}

/* Room for a message of `length` bytes, with its header written. */
static inline uint8_t *message(struct connection *c, uint8_t type, size_t length, uint32_t xid)
{
    if (c->out_end + length > OUT_BYTES) {
        memmove(c->out, c->out + c->out_start, c->out_end - c->out_start);
        c->out_end -= c->out_start;
        c->out_start = 0;
        if (c->out_end + length > OUT_BYTES)
            die("%d bytes wait and the peer does not read them", OUT_BYTES);
    }
    uint8_t *m = c->out + c->out_end;
    c->out_end += length;
    memset(m, 0, length);
    m[0] = OFP_VERSION;
    m[1] = type;
    put16(m + 2, (uint16_t)length);
    put32(m + 4, xid);
    return m;
}

/* Write what the socket takes. */
static inline void connection_flush(struct connection *c)
{
    while (c->out_start < c->out_end) {
        ssize_t n = send(c->fd, c->out + c->out_start, c->out_end - c->out_start, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            die("the peer is gone: %s", strerror(errno));
        }
        c->out_start += (size_t)n;
    }
    c->out_start = c->out_end = 0;
}

/* Read what has come; false when the peer closed. */
static inline bool connection_read(struct connection *c)
{
    if (c->in_start > 0) {
        memmove(c->in, c->in + c->in_start, c->in_end - c->in_start);
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
    ssize_t n = recv(c->fd, c->in + c->in_end, IN_BYTES - c->in_end, 0);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return true;
        die("the peer is gone: %s", strerror(errno));
    }
    c->in_end += (size_t)n;
    return n > 0;
}

/* The next whole message, or NULL. */
static inline uint8_t *connection_next(struct connection *c, size_t *length)
{
    size_t have = c->in_end - c->in_start;
    if (have < OFP_HEADER)
        return NULL;
    uint8_t *m = c->in + c->in_start;
    size_t need = get16(m + 2);
    if (need < OFP_HEADER)
        die("a message of %zu bytes", need);
    if (have < need)
        return NULL;
    c->in_start += need;
    *length = need;
    return m;
}

static inline void connection_wait(struct connection *c, int timeout_ms)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    if (c->out_start < c->out_end)
        p.events |= POLLOUT;
    if (poll(&p, 1, timeout_ms) < 0 && errno != EINTR)
        die("poll: %s", strerror(errno));
}

#endif
