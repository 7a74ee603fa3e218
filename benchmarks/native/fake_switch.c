/* An OpenFlow 1.3 switch that holds no packets: it offers packet-ins to a controller, each the first
 * packet of a new flow, and counts the answers that are right.
 *
 * usage: fake_switch --connect PORT --plan FILE --expect service|connection|location|exact
 *                    [--table N] [--table-size N] [--controller-pid PID] [--spin]
 *                    [--samples FILE --sample-every N] [--latencies FILE]
 *                    --phase NAME:WINDOW:FLOWS:SECONDS ...
 *
 * It connects to 127.0.0.1:PORT, completes the handshake, and then runs the phases, each with up to
 * WINDOW packet-ins outstanding, until FLOWS were offered or SECONDS have passed. Flows are those of
 * the plan (flow_plan.py), in order; each is offered once, as a TCP SYN whose sequence number is the
 * number of the flow. With --spin it does not sleep while it waits with up to SPIN_WINDOW packet-ins
 * outstanding: its own waking up would be measured too. Time in which it spins for nothing is not
 * counted as its CPU time.
 *
 * What an answer must be:
 *   service, connection   the agent's. The packet-in comes from the egress verdict table (--table) as
 *       Open vSwitch sends it after ct(): registers, conntrack state, zone and original tuple, with the
 *       cookie of the miss rule that the agent installed for the port's zone. Before the packet-out
 *       there must have been a verdict rule for this zone, address and port (connection: and source
 *       port) that commits the connection, and a location rule for the address whose tunnel endpoint
 *       and next MAC are those of the plan, that is, of the store.
 *   location   the agent's, for ports without port security, which no verdict is asked for. The
 *       packet-in comes from the location table (--table 40) without conntrack state, and the location
 *       rule alone must be there.
 *   exact   a plain controller's. The packet-in comes from table 0 with its in_port alone. Before the
 *       packet-out there must have been a rule that matches this address and port and outputs.
 * A packet-out must carry the flow's frame unchanged.
 *
 * --table-size N: when more than N on-demand rules are there, the oldest is reported as removed by its
 * idle timeout; a location rule that served a flow since it was last the oldest stays, as a rule in
 * use does. The result is one JSON object on standard output. */
#include "openflow.h"
#include "plan.h"
#include <sys/resource.h>

enum {
    DPID = 0x0d5e,
    FRAME_BYTES = 74,
    TUNNEL_PORT = 1000,
    MAX_PHASES = 16,
    NO_PROGRESS_S = 3,
    HANDSHAKE_S = 20,
    SAMPLES_MAX = 2000,
    SPIN_WINDOW = 32,
};

/* ------------------------------------------------------------------------------ what is expected */

enum expect { SERVICE, CONNECTION, LOCATION, EXACT };

/* From (address, port) to flow, and from address to neighbor: open addressing, 0 is free. */
struct index {
    uint64_t *keys;
    uint32_t *values;
    uint32_t mask;
};

static uint32_t slot_of(const struct index *index, uint64_t key)
{
    uint64_t hash = key * 0x9e3779b97f4a7c15ull;
    uint32_t slot = (uint32_t)(hash >> 32) & index->mask;
    while (index->values[slot] != 0 && index->keys[slot] != key)
        slot = (slot + 1) & index->mask;
    return slot;
}

static void index_init(struct index *index, uint32_t count)
{
    uint32_t size = 1024;
    while (size < count * 2)
        size *= 2;
    index->keys = allocate(size, sizeof *index->keys);
    index->values = allocate(size, sizeof *index->values);
    index->mask = size - 1;
}

static void index_put(struct index *index, uint64_t key, uint32_t value)
{
    uint32_t slot = slot_of(index, key);
    if (index->values[slot] != 0)
        die("the plan has two flows or neighbors alike");
    index->keys[slot] = key;
    index->values[slot] = value + 1;
}

/* The value, or UINT32_MAX. */
static uint32_t index_get(const struct index *index, uint64_t key)
{
    return index->values[slot_of(index, key)] - 1;
}

/* A rule that came, to be reported as removed. */
struct held {
    uint64_t cookie;
    uint32_t place;
    uint16_t priority;
    uint8_t table;
    bool location;
};

static struct plan plan;
static struct connection peer;
static enum expect expect = SERVICE;
static struct index flow_index, neighbor_index;
static uint64_t *verdict_cookie;   /* of the flow's rule that is there now, 0: none */
static uint64_t *location_cookie;  /* of the neighbor's */
static bool *location_used;
static uint64_t *sent_ns;
static uint32_t *latency_ns;
static bool *answered;

static uint8_t verdict_table = 30;
static uint32_t zones[65536], vnis[65536]; /* of an in_port */
static uint64_t miss_cookies[65536];       /* of a zone */
static bool miss_known[65536];
static uint64_t table_miss_cookie;
static bool table_miss_known;

static struct held *ring;
static uint32_t ring_first, ring_count, ring_room, table_size;

static FILE *samples;
static uint32_t sample_every = 1, sample_counter, sampled;

static struct {
    uint64_t flow_mods, verdicts, locations, exacts, deletes, packet_outs, errors, removed;
    uint64_t wrong_rules;   /* a rule for a planned flow or neighbor that says something else */
    uint64_t unknown_rules; /* an on-demand rule for what was never asked */
    uint64_t early;         /* a packet-out whose rules were not there */
    uint64_t bad_frames;    /* a packet-out with another frame */
    uint64_t repeated;      /* a second packet-out for one flow */
} counts;

static uint32_t outstanding, next_flow, phase_answered;
static uint64_t last_answer_ns, read_ns;
static bool taught;

/* ------------------------------------------------------------------------------------- flow-mods */

struct flow_mod {
    uint64_t cookie;
    uint8_t table, command;
    uint16_t priority, flags;
    uint32_t in_port, reg6, ipv4_dst, ct_nw_dst, set_reg5, set_reg6, set_tun_dst, output;
    uint32_t tcp_dst, tcp_src, ct_tp_dst, ct_tp_src, proto; /* UINT32_MAX: not matched */
    const uint8_t *set_eth_dst;
    uint16_t matched;
    bool commits, sets_tun_dst, outputs;
};

static void parse_match(struct flow_mod *f, const uint8_t *p, const uint8_t *end)
{
    while (p + 4 <= end) {
        uint32_t header = get32(p);
        const uint8_t *value = p + 4;
        p = value + (header & 0xff);
        if (p > end)
            die("a flow-mod with an OXM that ends behind its match");
        f->matched++;
        switch (header) {
        case OXM_IN_PORT: f->in_port = get32(value); break;
        case NXM_REG6: f->reg6 = get32(value); break;
        case OXM_IPV4_DST: f->ipv4_dst = get32(value); break;
        case OXM_TCP_DST: f->tcp_dst = get16(value); break;
        case OXM_TCP_SRC: f->tcp_src = get16(value); break;
        case OXM_IP_PROTO: f->proto = value[0]; break;
        case NXM_CT_NW_DST: f->ct_nw_dst = get32(value); break;
        case NXM_CT_TP_DST: f->ct_tp_dst = get16(value); break;
        case NXM_CT_TP_SRC: f->ct_tp_src = get16(value); break;
        case NXM_CT_NW_PROTO: f->proto = value[0]; break;
        default: break;
        }
    }
}

static void parse_action(struct flow_mod *f, const uint8_t *p, size_t length)
{
    switch (get16(p)) {
    case 0:
        f->output = get32(p + 4);
        f->outputs = true;
        break;
    case 25: {
        uint32_t header = get32(p + 4);
        if (header == NXM_REG5)
            f->set_reg5 = get32(p + 8);
        else if (header == NXM_REG6)
            f->set_reg6 = get32(p + 8);
        else if (header == NXM_TUN_DST) {
            f->set_tun_dst = get32(p + 8);
            f->sets_tun_dst = true;
        } else if (header == OXM_ETH_DST)
            f->set_eth_dst = p + 8;
        break;
    }
    case 0xffff:
        /* Nicira's ct, with the commit flag. */
        if (length >= 24 && get32(p + 4) == 0x2320 && get16(p + 8) == 35 && (get16(p + 10) & 1))
            f->commits = true;
        break;
    default: break;
    }
}

static void parse_flow_mod(struct flow_mod *f, const uint8_t *m, size_t length)
{
    if (length < 56)
        die("a flow-mod of %zu bytes", length);
    memset(f, 0, sizeof *f);
    f->tcp_dst = f->tcp_src = f->ct_tp_dst = f->ct_tp_src = f->proto = UINT32_MAX;
    f->cookie = get64(m + 8);
    f->table = m[24];
    f->command = m[25];
    f->priority = get16(m + 30);
    f->flags = get16(m + 44);
    size_t match_bytes = get16(m + 50);
    const uint8_t *p = m + 48 + (match_bytes + 7) / 8 * 8, *end = m + length;
    if (match_bytes < 4 || p > end)
        die("a flow-mod with a match of %zu bytes", match_bytes);
    parse_match(f, m + 52, m + 48 + match_bytes);
    while (p + 8 <= end) {
        size_t size = get16(p + 2);
        if (size < 8 || p + size > end)
            die("a flow-mod with an instruction of %zu bytes", size);
        if (get16(p) == 4)
            for (const uint8_t *a = p + 8; a + 8 <= p + size; a += get16(a + 2)) {
                if (get16(a + 2) < 8 || a + get16(a + 2) > p + size)
                    die("a flow-mod with an action of %u bytes", get16(a + 2));
                parse_action(f, a, get16(a + 2));
            }
        p += size;
    }
}

static void sample(const uint8_t *m, size_t length)
{
    if (samples != NULL && sampled < SAMPLES_MAX && sample_counter++ % sample_every == 0) {
        sampled++;
        fwrite(m, 1, length, samples);
    }
}

static void hold(const struct flow_mod *f, uint32_t place, bool location)
{
    if (table_size == 0 || !(f->flags & 1))
        return;
    if (ring_count == ring_room)
        die("more than %u rules are held", ring_room);
    ring[(ring_first + ring_count++) % ring_room] = (struct held){
        .cookie = f->cookie,
        .place = place,
        .priority = f->priority,
        .table = f->table,
        .location = location,
    };
    while (ring_count > table_size) {
        struct held oldest = ring[ring_first];
        ring_first = (ring_first + 1) % ring_room;
        ring_count--;
        uint64_t *cookie = oldest.location ? location_cookie : verdict_cookie;
        if (cookie[oldest.place] != oldest.cookie)
            continue; /* replaced meanwhile: nothing is reported for it */
        if (oldest.location && location_used[oldest.place]) {
            location_used[oldest.place] = false;
            ring[(ring_first + ring_count++) % ring_room] = oldest;
            continue;
        }
        cookie[oldest.place] = 0;
        counts.removed++;
        uint8_t *m = message(&peer, OFPT_FLOW_REMOVED, 56, 0);
        put64(m + 8, oldest.cookie);
        put16(m + 16, oldest.priority);
        m[19] = oldest.table;
        put16(m + 28, 60);
        put16(m + 48, 1);
        put16(m + 50, 4);
    }
}

/* A rule of the agent for a destination on demand. */
static void take_location(const struct flow_mod *f, const uint8_t *m, size_t length)
{
    uint32_t place = index_get(&neighbor_index, f->ipv4_dst);
    if (place == UINT32_MAX) {
        counts.unknown_rules++;
        return;
    }
    const struct plan_neighbor *neighbor = &plan.neighbors[place];
    sample(m, length);
    if (f->set_tun_dst != ntohl(neighbor->host) || f->set_eth_dst == NULL || !f->outputs ||
        memcmp(f->set_eth_dst, neighbor->mac, 6) != 0) {
        counts.wrong_rules++;
        return;
    }
    counts.locations++;
    location_cookie[place] = f->cookie;
    hold(f, place, true);
}

static void take_verdict(const struct flow_mod *f, const uint8_t *m, size_t length)
{
    uint32_t place = index_get(&flow_index, (uint64_t)f->ct_nw_dst << 16 | f->ct_tp_dst);
    if (place == UINT32_MAX) {
        counts.unknown_rules++;
        return;
    }
    const struct plan_flow *flow = &plan.flows[place];
    uint32_t source = expect == CONNECTION ? flow->source_port : UINT32_MAX;
    sample(m, length);
    if (expect == LOCATION || !f->commits || f->proto != 6 || f->table != verdict_table || f->ct_tp_src != source ||
        f->reg6 != zones[plan.ports[flow->port].ofport]) {
        counts.wrong_rules++;
        return;
    }
    counts.verdicts++;
    verdict_cookie[place] = f->cookie;
    hold(f, place, false);
}

static void take_exact(const struct flow_mod *f, const uint8_t *m, size_t length)
{
    uint32_t place = index_get(&flow_index, (uint64_t)f->ipv4_dst << 16 | f->tcp_dst);
    if (place == UINT32_MAX) {
        counts.unknown_rules++;
        return;
    }
    sample(m, length);
    if (!f->outputs || f->proto != 6 ||
        (f->tcp_src != UINT32_MAX && f->tcp_src != plan.flows[place].source_port)) {
        counts.wrong_rules++;
        return;
    }
    counts.exacts++;
    /* A plain controller may leave the cookie 0, which would read as "no rule". */
    verdict_cookie[place] = f->cookie | 1;
}

static void take_flow_mod(const uint8_t *m, size_t length)
{
    struct flow_mod f;
    parse_flow_mod(&f, m, length);
    counts.flow_mods++;
    if (f.command == 3 || f.command == 4) {
        counts.deletes++;
        return;
    }
    if (expect == EXACT) {
        if (f.ipv4_dst != 0 && f.tcp_dst != UINT32_MAX)
            take_exact(&f, m, length);
        else if (f.table == 0 && f.priority == 0 && f.matched == 0) {
            table_miss_known = true;
            table_miss_cookie = f.cookie;
        }
        return;
    }
    if (f.ct_nw_dst != 0 && f.ct_tp_dst != UINT32_MAX)
        take_verdict(&f, m, length);
    else if (f.ipv4_dst != 0 && f.sets_tun_dst)
        take_location(&f, m, length);
    else if (f.in_port != 0 && f.in_port < 65536 && f.set_reg6 != 0) {
        zones[f.in_port] = f.set_reg6;
        vnis[f.in_port] = f.set_reg5;
    } else if (f.table == verdict_table && f.priority == 0 && f.reg6 != 0 && f.reg6 < 65536) {
        miss_known[f.reg6] = true;
        miss_cookies[f.reg6] = f.cookie;
    }
}

/* ------------------------------------------------------------------------------- packet-in and -out */

static uint16_t checksum(uint32_t sum, const uint8_t *p, size_t length)
{
    for (size_t i = 0; i < length; i += 2)
        sum += get16(p + i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* The SYN that Linux sends: 20 bytes of options (MSS, SACK, timestamps, window scale). */
static void build_frame(uint8_t *frame, uint32_t place)
{
    static const uint8_t options[20] = {2, 4, 0x05, 0x82, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};
    const struct plan_flow *flow = &plan.flows[place];
    const struct plan_port *port = &plan.ports[flow->port];
    const struct plan_neighbor *neighbor = &plan.neighbors[flow->neighbor];
    memset(frame, 0, FRAME_BYTES);
    memcpy(frame, plan.head.gateway_mac, 6);
    memcpy(frame + 6, port->mac, 6);
    put16(frame + 12, 0x0800);
    uint8_t *ip = frame + 14, *tcp = frame + 34;
    ip[0] = 0x45;
    put16(ip + 2, FRAME_BYTES - 14);
    put16(ip + 4, (uint16_t)place);
    put16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = 6;
    memcpy(ip + 12, &port->ip, 4);
    memcpy(ip + 16, &neighbor->ip, 4);
    put16(ip + 10, checksum(0, ip, 20));
    put16(tcp, flow->source_port);
    put16(tcp + 2, flow->target_port);
    put32(tcp + 4, place);
    tcp[12] = 0xa0;
    tcp[13] = 0x02;
    put16(tcp + 14, 64240);
    memcpy(tcp + 20, options, sizeof options);
    put16(tcp + 16, checksum(0x0006 + 40u + (uint16_t)~checksum(0, ip + 12, 8), tcp, 40));
}

static void packet_in_head(uint8_t *m, uint8_t table, uint64_t cookie, uint16_t match_bytes)
{
    put32(m + 8, 0xffffffff);
    put16(m + 12, FRAME_BYTES);
    /* 0, table-miss, is said of a rule that matches everything; any other rule is an action. */
    m[14] = match_bytes == 12 ? 0 : 1;
    m[15] = table;
    put64(m + 16, cookie);
    put16(m + 24, 1);
    put16(m + 26, match_bytes);
    put32(m + 28, OXM_IN_PORT);
}

static void offer(uint32_t place)
{
    const struct plan_flow *flow = &plan.flows[place];
    const struct plan_port *port = &plan.ports[flow->port];
    if (expect == EXACT) {
        uint8_t *m = message(&peer, OFPT_PACKET_IN, 42 + FRAME_BYTES, 0);
        packet_in_head(m, 0, table_miss_cookie, 12);
        put32(m + 32, port->ofport);
        build_frame(m + 42, place);
        return;
    }
    uint32_t zone = zones[port->ofport];
    if (expect == LOCATION) {
        uint8_t *m = message(&peer, OFPT_PACKET_IN, 58 + FRAME_BYTES, 0);
        packet_in_head(m, verdict_table, miss_cookies[zone], 28);
        put32(m + 32, port->ofport);
        put32(m + 36, NXM_REG5);
        put32(m + 40, vnis[port->ofport]);
        put32(m + 44, NXM_REG6);
        put32(m + 48, zone);
        build_frame(m + 58, place);
        return;
    }
    uint8_t *m = message(&peer, OFPT_PACKET_IN, 114 + FRAME_BYTES, 0);
    packet_in_head(m, verdict_table, miss_cookies[zone], 85);
    put32(m + 32, port->ofport);
    put32(m + 36, OXM_ETH_TYPE);
    put16(m + 40, 0x0800);
    put32(m + 42, NXM_REG5);
    put32(m + 46, vnis[port->ofport]);
    put32(m + 50, NXM_REG6);
    put32(m + 54, zone);
    put32(m + 58, NXM_CT_STATE_MASKED);
    put32(m + 62, 0x21);
    put32(m + 66, 0xff);
    put32(m + 70, NXM_CT_ZONE);
    put16(m + 74, (uint16_t)zone);
    put32(m + 76, NXM_CT_NW_SRC);
    memcpy(m + 80, &port->ip, 4);
    put32(m + 84, NXM_CT_NW_DST);
    memcpy(m + 88, &plan.neighbors[flow->neighbor].ip, 4);
    put32(m + 92, NXM_CT_NW_PROTO);
    m[96] = 6;
    put32(m + 97, NXM_CT_TP_SRC);
    put16(m + 101, flow->source_port);
    put32(m + 103, NXM_CT_TP_DST);
    put16(m + 107, flow->target_port);
    build_frame(m + 114, place);
}

static void take_packet_out(const uint8_t *m, size_t length)
{
    counts.packet_outs++;
    size_t data_at = 24 + (size_t)get16(m + 16);
    const uint8_t *frame = m + data_at;
    if (length < data_at + 14) {
        counts.bad_frames++;
        return;
    }
    if (frame[0] & 1) {
        taught = true; /* the gateway's broadcast, flooded */
        return;
    }
    uint8_t right[FRAME_BYTES];
    uint32_t place = length - data_at == FRAME_BYTES ? get32(frame + 38) : UINT32_MAX;
    if (place >= next_flow) {
        counts.bad_frames++;
        return;
    }
    build_frame(right, place);
    if (memcmp(right, frame, FRAME_BYTES) != 0) {
        counts.bad_frames++;
        return;
    }
    if (answered[place]) {
        counts.repeated++;
        return;
    }
    answered[place] = true;
    outstanding--;
    if ((expect != LOCATION && verdict_cookie[place] == 0) ||
        (expect != EXACT && location_cookie[plan.flows[place].neighbor] == 0)) {
        counts.early++;
        return;
    }
    location_used[plan.flows[place].neighbor] = true;
    phase_answered++;
    last_answer_ns = read_ns;
    latency_ns[place] = (uint32_t)(read_ns - sent_ns[place]);
}

/* -------------------------------------------------------------------------------------- handshake */

static void reply(const uint8_t *m, uint8_t type, size_t length)
{
    uint8_t *r = message(&peer, type, length, get32(m + 4));
    if (type == OFPT_ECHO_REPLY || type == OFPT_ROLE_REPLY)
        memcpy(r + 8, m + 8, length - 8);
}

static void reply_features(const uint8_t *m)
{
    uint8_t *r = message(&peer, OFPT_FEATURES_REPLY, 32, get32(m + 4));
    put64(r + 8, DPID);
    r[20] = 254;
    put32(r + 24, 0x47); /* flow, table, port and queue statistics, as Open vSwitch */
}

static void port_description(uint8_t *p, uint32_t ofport, const uint8_t *mac, const char *name)
{
    put32(p, ofport);
    memcpy(p + 8, mac, 6);
    snprintf((char *)p + 16, 16, "%s%u", name, ofport);
}

static void reply_multipart(const uint8_t *m, size_t length)
{
    uint16_t type = length >= 10 ? get16(m + 8) : 0xffff;
    uint32_t ports = plan.head.ports + 1;
    /* Description, aggregate (of no flows), ports. There are no flows and no meters to tell of. */
    size_t body = type == 0 ? 1056 : type == 2 ? 24 : type == 13 ? ports * 64 : 0;
    uint8_t *r = message(&peer, OFPT_MULTIPART_REPLY, 16 + body, get32(m + 4));
    put16(r + 8, type);
    if (type == 0)
        snprintf((char *)r + 16, 256, "fake switch");
    if (type == 13) {
        for (uint32_t i = 0; i + 1 < ports; i++)
            port_description(r + 16 + i * 64, plan.ports[i].ofport, plan.ports[i].mac, "tap");
        port_description(r + 16 + (ports - 1) * 64, TUNNEL_PORT, plan.head.gateway_mac, "vxlan");
    }
}

static void take(const uint8_t *m, size_t length)
{
    switch (m[1]) {
    case OFPT_FLOW_MOD: take_flow_mod(m, length); break;
    case OFPT_PACKET_OUT: take_packet_out(m, length); break;
    case OFPT_ECHO_REQUEST: reply(m, OFPT_ECHO_REPLY, length); break;
    case OFPT_FEATURES_REQUEST: reply_features(m); break;
    case OFPT_GET_CONFIG_REQUEST: reply(m, OFPT_GET_CONFIG_REPLY, 12); break;
    case OFPT_MULTIPART_REQUEST: reply_multipart(m, length); break;
    case OFPT_BARRIER_REQUEST: reply(m, OFPT_BARRIER_REPLY, 8); break;
    case OFPT_ROLE_REQUEST: reply(m, OFPT_ROLE_REPLY, length); break;
    case OFPT_ERROR:
        counts.errors++;
        fprintf(stderr, "the controller sent an error, type %u\n", get16(m + 8));
        break;
    default: break; /* hello, set-config, meter-mod, set-async: nothing to say */
    }
}

/* Wait up to `timeout_ms` for messages and handle them all. */
static void serve(int timeout_ms)
{
    uint8_t *m;
    size_t length;
    connection_flush(&peer);
    connection_wait(&peer, timeout_ms);
    if (!connection_read(&peer))
        die("the controller closed the connection");
    read_ns = now_ns();
    while ((m = connection_next(&peer, &length)) != NULL)
        take(m, length);
}

static bool is_ready(void)
{
    if (expect == EXACT)
        return table_miss_known;
    for (uint32_t i = 0; i < plan.head.ports; i++) {
        uint32_t zone = zones[plan.ports[i].ofport];
        if (zone == 0 || zone > 65535 || !miss_known[zone])
            return false;
    }
    return true;
}

/* A controller that learns addresses has to have seen the gateway's, or it floods. */
static void teach(void)
{
    uint8_t *m = message(&peer, OFPT_PACKET_IN, 42 + 60, 0);
    packet_in_head(m, 0, table_miss_cookie, 12);
    put16(m + 12, 60);
    put32(m + 32, TUNNEL_PORT);
    uint8_t *frame = m + 42;
    memset(frame, 0xff, 6);
    memcpy(frame + 6, plan.head.gateway_mac, 6);
    put16(frame + 12, 0x0806);
    put16(frame + 14, 1);
    put16(frame + 16, 0x0800);
    frame[18] = 6;
    frame[19] = 4;
    put16(frame + 20, 1);
    memcpy(frame + 22, plan.head.gateway_mac, 6);
    uint64_t end_ns = now_ns() + 2000000000u;
    while (!taught && now_ns() < end_ns)
        serve(100);
    if (!taught)
        die("the controller did not flood a broadcast");
}

static void connect_to(uint16_t port)
{
    struct sockaddr_in there = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    uint64_t end_ns = now_ns() + (uint64_t)HANDSHAKE_S * 1000000000u;
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0)
            die("socket: %s", strerror(errno));
        if (connect(fd, (struct sockaddr *)&there, sizeof there) == 0) {
            connection_init(&peer, fd);
            return;
        }
        close(fd);
        if (now_ns() > end_ns)
            die("nobody listens on 127.0.0.1:%u", port);
        usleep(20000);
    }
}

static void handshake(void)
{
    message(&peer, OFPT_HELLO, 8, 0);
    uint64_t end_ns = now_ns() + (uint64_t)HANDSHAKE_S * 1000000000u;
    while (!is_ready()) {
        serve(100);
        if (now_ns() > end_ns)
            die("after %d s the controller has not installed its rules", HANDSHAKE_S);
    }
    if (expect == EXACT)
        teach();
    /* Let it finish what it does at a start. */
    end_ns = now_ns() + 300000000u;
    while (now_ns() < end_ns)
        serve(50);
}

/* ----------------------------------------------------------------------------------------- phases */

struct phase {
    char name[32];
    uint32_t window, flows;
    double seconds;
};

/* User and system time of a process, all threads, ns; 0 when it is not to be seen. */
static uint64_t cpu_of_process(int pid)
{
    char path[64], text[1024];
    if (pid == 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = 0;
    /* The name in parentheses may hold anything; fields are counted from its end. */
    char *p = strrchr(text, ')');
    unsigned long long user = 0, system = 0;
    if (p == NULL || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                            &system) != 2)
        return 0;
    return (user + system) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t own_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
}

static void run_phase(const struct phase *phase, int pid, bool spin, bool first)
{
    uint32_t begin = next_flow, sent = 0;
    uint64_t start = now_ns(), end = start + (uint64_t)(phase->seconds * 1e9);
    uint64_t own = own_cpu(), controller = cpu_of_process(pid);
    uint64_t progress = start, spun = 0;
    bool spins = spin && phase->window <= SPIN_WINDOW;
    phase_answered = 0;
    outstanding = 0;
    last_answer_ns = start;
    for (;;) {
        uint64_t now = now_ns();
        uint32_t before = outstanding;
        if (now < end)
            while (outstanding < phase->window && sent < phase->flows &&
                   next_flow < plan.head.flows && peer.out_end < OUT_BYTES / 2) {
                sent_ns[next_flow] = now;
                offer(next_flow++);
                outstanding++;
                sent++;
            }
        if (outstanding == 0)
            break;
        if (outstanding != before)
            progress = now;
        before = outstanding;
        serve(spins ? 0 : 200);
        if (outstanding < before) {
            progress = read_ns;
            continue;
        }
        uint64_t later = now_ns();
        if (spins)
            spun += later - now;
        if (later - progress > (uint64_t)NO_PROGRESS_S * 1000000000u)
            break;
    }
    uint64_t elapsed = last_answer_ns - start, used = own_cpu() - own;
    printf("%s{\"name\": \"%s\", \"window\": %u, \"first\": %u, \"offered\": %u, \"answered\": %u,"
           " \"elapsed_ns\": %llu, \"switch_cpu_ns\": %llu, \"controller_cpu_ns\": %llu}",
           first ? "" : ", ", phase->name, phase->window, begin, sent, phase_answered,
           (unsigned long long)elapsed, (unsigned long long)(used > spun ? used - spun : 0),
           (unsigned long long)(cpu_of_process(pid) - controller));
}

static struct phase parse_phase(const char *text)
{
    struct phase phase;
    memset(&phase, 0, sizeof phase);
    if (sscanf(text, "%31[^:]:%u:%u:%lf", phase.name, &phase.window, &phase.flows,
               &phase.seconds) != 4 ||
        phase.window == 0 || phase.seconds <= 0 || phase.seconds > 300)
        die("'%s' is no phase NAME:WINDOW:FLOWS:SECONDS", text);
    return phase;
}

static void prepare(const char *path)
{
    plan_read(&plan, path);
    const struct plan_head *head = &plan.head;
    index_init(&flow_index, head->flows);
    index_init(&neighbor_index, head->neighbors);
    for (uint32_t i = 0; i < head->neighbors; i++)
        index_put(&neighbor_index, ntohl(plan.neighbors[i].ip), i);
    for (uint32_t i = 0; i < head->flows; i++) {
        uint64_t ip = ntohl(plan.neighbors[plan.flows[i].neighbor].ip);
        index_put(&flow_index, ip << 16 | plan.flows[i].target_port, i);
    }
    verdict_cookie = allocate(head->flows, sizeof *verdict_cookie);
    location_cookie = allocate(head->neighbors, sizeof *location_cookie);
    location_used = allocate(head->neighbors, sizeof *location_used);
    sent_ns = allocate(head->flows, sizeof *sent_ns);
    latency_ns = allocate(head->flows, sizeof *latency_ns);
    answered = allocate(head->flows, sizeof *answered);
    ring_room = 2 * head->flows + head->neighbors + 16;
    ring = allocate(table_size ? ring_room : 1, sizeof *ring);
}

int main(int argc, char **argv)
{
    const char *plan_path = NULL, *latencies = NULL, *samples_path = NULL;
    struct phase phases[MAX_PHASES];
    int phase_count = 0, port = 0, pid = 0;
    bool spin = false;
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];
        if (strcmp(option, "--spin") == 0) {
            spin = true;
            continue;
        }
        if (++i == argc)
            die("%s wants a value", option);
        const char *value = argv[i];
        if (strcmp(option, "--connect") == 0)
            port = atoi(value);
        else if (strcmp(option, "--plan") == 0)
            plan_path = value;
        else if (strcmp(option, "--expect") == 0)
            expect = strcmp(value, "exact") == 0        ? EXACT
                     : strcmp(value, "connection") == 0 ? CONNECTION
                     : strcmp(value, "location") == 0   ? LOCATION
                                                        : SERVICE;
        else if (strcmp(option, "--table") == 0)
            verdict_table = (uint8_t)atoi(value);
        else if (strcmp(option, "--table-size") == 0)
            table_size = (uint32_t)atoi(value);
        else if (strcmp(option, "--controller-pid") == 0)
            pid = atoi(value);
        else if (strcmp(option, "--samples") == 0)
            samples_path = value;
        else if (strcmp(option, "--sample-every") == 0)
            sample_every = (uint32_t)atoi(value);
        else if (strcmp(option, "--latencies") == 0)
            latencies = value;
        else if (strcmp(option, "--phase") == 0 && phase_count < MAX_PHASES)
            phases[phase_count++] = parse_phase(value);
        else
            die("unknown option %s", option);
    }
    if (port <= 0 || port > 65535 || plan_path == NULL || sample_every == 0)
        die("--connect PORT and --plan FILE are needed");
    prepare(plan_path);
    if (samples_path != NULL && (samples = fopen(samples_path, "wb")) == NULL)
        die("%s: %s", samples_path, strerror(errno));
    connect_to((uint16_t)port);
    handshake();

    printf("{\"phases\": [");
    for (int i = 0; i < phase_count; i++)
        run_phase(&phases[i], pid, spin, i == 0);
    printf("], \"counts\": {\"flow_mods\": %llu, \"verdicts\": %llu, \"locations\": %llu,"
           " \"exacts\": %llu, \"deletes\": %llu, \"packet_outs\": %llu, \"errors\": %llu,"
           " \"removed\": %llu, \"wrong_rules\": %llu, \"unknown_rules\": %llu, \"early\": %llu,"
           " \"bad_frames\": %llu, \"repeated\": %llu, \"sampled\": %u}}\n",
           (unsigned long long)counts.flow_mods, (unsigned long long)counts.verdicts,
           (unsigned long long)counts.locations, (unsigned long long)counts.exacts,
           (unsigned long long)counts.deletes, (unsigned long long)counts.packet_outs,
           (unsigned long long)counts.errors, (unsigned long long)counts.removed,
           (unsigned long long)counts.wrong_rules, (unsigned long long)counts.unknown_rules,
           (unsigned long long)counts.early, (unsigned long long)counts.bad_frames,
           (unsigned long long)counts.repeated, sampled);
    if (samples != NULL)
        fclose(samples);
    if (latencies != NULL) {
        FILE *file = fopen(latencies, "wb");
        if (file == NULL || fwrite(latency_ns, sizeof *latency_ns, next_flow, file) != next_flow)
            die("%s: %s", latencies, strerror(errno));
        fclose(file);
    }
    return 0;
}
