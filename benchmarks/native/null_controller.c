/* A controller that thinks nothing: it answers each packet-in at once with two flow-mods and the
 * packet-out that the fake switch waits for. What it reaches is what instrument and loopback allow.
 *
 * usage: null_controller PORT PORTS PLAN
 *
 * It listens on 127.0.0.1:PORT for one connection, serves PORTS local ports (1..PORTS), and ends with
 * the connection. The plan (see flow_plan.py) tells the tunnel endpoint of each flow, so that the
 * answer passes the same checks as the agent's. */
#include "openflow.h"
#include "plan.h"

#define COOKIE 0x0d5e000000000000ull

enum { VERDICT_TABLE = 30, LOCATION_TABLE = 40, VNI = 1 };

static struct plan plan;

static uint8_t *oxm32(uint8_t *p, uint32_t header, uint32_t value)
{
    put32(p, header);
    put32(p + 4, value);
    return p + 8;
}

static uint8_t *oxm16(uint8_t *p, uint32_t header, uint16_t value)
{
    put32(p, header);
    put16(p + 4, value);
    return p + 6;
}

/* Begin a flow-mod in a buffer; the match follows at +52. */
static uint8_t *begin(uint8_t *m, uint8_t table, uint16_t priority, uint64_t cookie)
{
    memset(m, 0, 512);
    put64(m + 8, cookie);
    m[24] = table;
    put16(m + 30, priority);
    put32(m + 32, 0xffffffff);
    put32(m + 36, 0xffffffff);
    put32(m + 40, 0xffffffff);
    put16(m + 48, 1);
    return m + 52;
}

/* End the match at `p`, begin the actions; returns where they go. */
static uint8_t *actions(uint8_t *m, uint8_t *p)
{
    size_t length = (size_t)(p - (m + 48));
    put16(m + 50, (uint16_t)length);
    p = m + 48 + (length + 7) / 8 * 8;
    put16(p, 4);
    return p + 8;
}

static void finish(struct connection *c, uint8_t *m, uint8_t *instruction, uint8_t *end)
{
    put16(instruction + 2, (uint16_t)(end - instruction));
    size_t length = (size_t)(end - m);
    uint8_t *out = message(c, OFPT_FLOW_MOD, length, 0);
    memcpy(out + 8, m + 8, length - 8);
}

static uint8_t *set_field32(uint8_t *p, uint32_t header, uint32_t value)
{
    put16(p, 25);
    put16(p + 2, 16);
    put32(p + 4, header);
    put32(p + 8, value);
    return p + 16;
}

static uint8_t *output(uint8_t *p, uint32_t port)
{
    put16(p, 0);
    put16(p + 2, 16);
    put32(p + 4, port);
    return p + 16;
}

static uint8_t *commit(uint8_t *p)
{
    put16(p, 0xffff);
    put16(p + 2, 24);
    put32(p + 4, 0x2320);
    put16(p + 8, 35);
    put16(p + 10, 1);
    put32(p + 12, NXM_REG6);
    put16(p + 16, 15);
    p[18] = 0xff;
    return p + 24;
}

static void program(struct connection *c, uint32_t ports)
{
    uint8_t m[512];
    for (uint32_t port = 1; port <= ports; port++) {
        uint8_t *p = oxm32(begin(m, 0, 200, COOKIE), OXM_IN_PORT, port);
        uint8_t *a = actions(m, p);
        finish(c, m, a - 8, set_field32(set_field32(a, NXM_REG5, VNI), NXM_REG6, port));
        p = oxm32(begin(m, VERDICT_TABLE, 0, COOKIE | port), NXM_REG6, port);
        a = actions(m, p);
        finish(c, m, a - 8, output(a, 0xfffffffd));
    }
}

static void answer(struct connection *c, const uint8_t *in, size_t length)
{
    static uint64_t cookie = COOKIE | 0x10000;
    uint8_t m[512];
    size_t data_at = 24 + (get16(in + 26) + 7u) / 8 * 8 + 2;
    const uint8_t *frame = in + data_at;
    size_t size = length - data_at;
    const struct plan_flow *flow = &plan.flows[get32(frame + 38) % plan.head.flows];
    const struct plan_neighbor *neighbor = &plan.neighbors[flow->neighbor];
    uint32_t target = get32(frame + 30);

    uint8_t *p = begin(m, VERDICT_TABLE, 100, cookie++);
    p = oxm32(p, NXM_REG6, get32(in + 32));
    p = oxm16(p, OXM_ETH_TYPE, 0x0800);
    p = oxm32(p, NXM_CT_NW_DST, target);
    put32(p, NXM_CT_NW_PROTO);
    p[4] = 6;
    p = oxm16(p + 5, NXM_CT_TP_DST, get16(frame + 36));
    uint8_t *a = actions(m, p);
    finish(c, m, a - 8, commit(a));

    p = begin(m, LOCATION_TABLE, 100, cookie++);
    p = oxm16(p, OXM_ETH_TYPE, 0x0800);
    p = oxm32(p, OXM_IPV4_DST, target);
    a = actions(m, p);
    uint8_t *set_mac = a;
    put16(a, 25);
    put16(a + 2, 16);
    put32(a + 4, OXM_ETH_DST);
    memcpy(set_mac + 8, neighbor->mac, 6);
    finish(c, m, a - 8, output(set_field32(a + 16, NXM_TUN_DST, ntohl(neighbor->host)), 1000));

    uint8_t *o = message(c, OFPT_PACKET_OUT, 24 + 16 + size, 0);
    put32(o + 8, 0xffffffff);
    put32(o + 12, get32(in + 32));
    put16(o + 16, 16);
    output(o + 24, 0xfffffff9);
    memcpy(o + 40, frame, size);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        die("usage: null_controller PORT PORTS PLAN");
    uint32_t ports = (uint32_t)atoi(argv[2]);
    plan_read(&plan, argv[3]);

    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in here = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(argv[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 1) != 0)
        die("127.0.0.1:%s: %s", argv[1], strerror(errno));
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        die("accept: %s", strerror(errno));

    struct connection c;
    connection_init(&c, fd);
    message(&c, OFPT_HELLO, 8, 0);
    message(&c, OFPT_FEATURES_REQUEST, 8, 1);
    program(&c, ports);
    message(&c, OFPT_BARRIER_REQUEST, 8, 2);
    connection_flush(&c);
    for (;;) {
        connection_wait(&c, -1);
        if (!connection_read(&c))
            return 0;
        uint8_t *m;
        size_t length;
        while ((m = connection_next(&c, &length)) != NULL) {
            if (m[1] == OFPT_PACKET_IN)
                answer(&c, m, length);
            else if (m[1] == OFPT_ECHO_REQUEST)
                memcpy(message(&c, OFPT_ECHO_REPLY, length, get32(m + 4)) + 8, m + 8, length - 8);
        }
        connection_flush(&c);
    }
}
