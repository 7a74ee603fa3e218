/* Sends UDP frames from one namespace and times their arrival in another, in one process, so that both
 * ends read one clock.
 *
 * usage: probe --from PID:INTERFACE --to PID:INTERFACE --macs SOURCE,TARGET --ips SOURCE,TARGET
 *              --source-port N --first-port N --flows N --passes N --window N --pause-us N --timeout-ms N
 *
 * A flow is a UDP destination port, FIRST..FIRST+FLOWS-1. Each pass sends one frame of every flow, with
 * at most WINDOW on their way; the frames of the first pass are the first of their flows. With nothing
 * on its way it pauses before the next frame, so that the switches have gone to sleep again: one that
 * is still at work after the last frame would have to end that first. The result is one JSON object: for
 * each pass the microseconds from send to arrival of each flow, -1 for one that did not arrive in time, and
 * those from the first send to the last arrival. Needs CAP_SYS_ADMIN and CAP_NET_RAW (setns(2), packet(7)). */
#define _GNU_SOURCE
#include "openflow.h"
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>

enum { FRAME_BYTES = 64, PAYLOAD_AT = 42, MAGIC_BYTES = 8 };

static const uint8_t MAGIC[MAGIC_BYTES] = {0x0d, 0x5e, 'p', 'r', 'o', 'b', 'e', 1};

static uint8_t macs[2][6];
static uint32_t ips[2];
static uint16_t source_port, first_port;

/* A packet socket on an interface of the namespace that a process is in. */
static int open_in(const char *place, bool receives)
{
    char path[64], name[IFNAMSIZ];
    int pid;
    if (sscanf(place, "%d:%15s", &pid, name) != 2)
        die("'%s' is no PID:INTERFACE", place);
    snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(path, O_RDONLY | O_CLOEXEC);
    if (home < 0 || there < 0 || setns(there, CLONE_NEWNET) != 0)
        die("the namespace of process %d cannot be entered: %s", pid, strerror(errno));
    /* Protocol 0 receives nothing, so the sender's queue does not fill up. */
    int fd = socket(AF_PACKET, SOCK_RAW, receives ? htons(ETH_P_IP) : 0);
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = receives ? htons(ETH_P_IP) : 0,
        .sll_ifindex = (int)if_nametoindex(name),
    };
    if (fd < 0 || address.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&address, sizeof address))
        die("%s: %s", place, strerror(errno));
    if (setns(home, CLONE_NEWNET) != 0)
        die("the way back from %s failed: %s", place, strerror(errno));
    close(home);
    close(there);
    return fd;
}

static uint16_t ip_checksum(const uint8_t *ip)
{
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += get16(ip + i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void build(uint8_t *frame, uint32_t flow, uint32_t pass)
{
    memset(frame, 0, FRAME_BYTES);
    memcpy(frame, macs[1], 6);
    memcpy(frame + 6, macs[0], 6);
    put16(frame + 12, ETH_P_IP);
    uint8_t *ip = frame + 14, *udp = frame + 34;
    ip[0] = 0x45;
    put16(ip + 2, FRAME_BYTES - 14);
    put16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = IPPROTO_UDP;
    memcpy(ip + 12, &ips[0], 4);
    memcpy(ip + 16, &ips[1], 4);
    put16(ip + 10, ip_checksum(ip));
    put16(udp, source_port);
    put16(udp + 2, (uint16_t)(first_port + flow));
    put16(udp + 4, FRAME_BYTES - 34);
    /* No UDP checksum, which IPv4 allows (RFC 768). */
    memcpy(frame + PAYLOAD_AT, MAGIC, MAGIC_BYTES);
    put32(frame + PAYLOAD_AT + 8, flow);
    put32(frame + PAYLOAD_AT + 12, pass);
}

/* The flow of a frame of this pass, or UINT32_MAX. */
static uint32_t flow_of(const uint8_t *frame, ssize_t length, uint32_t pass, uint32_t flows)
{
    if (length < FRAME_BYTES || memcmp(frame + PAYLOAD_AT, MAGIC, MAGIC_BYTES) != 0 ||
        get32(frame + PAYLOAD_AT + 12) != pass)
        return UINT32_MAX;
    uint32_t flow = get32(frame + PAYLOAD_AT + 8);
    return flow < flows && get16(frame + 36) == (uint16_t)(first_port + flow) ? flow : UINT32_MAX;
}

/* Prints the latencies; returns the microseconds from the first send to the last arrival. */
static double run_pass(int out, int in, uint32_t pass, uint32_t flows, uint32_t window,
                     uint32_t pause_us, int timeout_ms)
{
    uint64_t *sent = allocate(flows, sizeof *sent);
    double *us = allocate(flows, sizeof *us);
    uint32_t next = 0, oldest = 0, waiting = 0;
    uint64_t last = 0;
    uint8_t frame[2048];
    for (uint32_t i = 0; i < flows; i++)
        us[i] = -1;
    while (next < flows || waiting > 0) {
        if (waiting == 0 && pause_us > 0)
            usleep(pause_us);
        while (next < flows && waiting < window) {
            build(frame, next, pass);
            sent[next] = now_ns();
            if (send(out, frame, FRAME_BYTES, 0) != FRAME_BYTES)
                die("send: %s", strerror(errno));
            next++;
            waiting++;
        }
        struct pollfd p = {.fd = in, .events = POLLIN};
        if (poll(&p, 1, timeout_ms) < 0)
            die("poll: %s", strerror(errno));
        uint64_t now = now_ns();
        ssize_t n;
        while ((n = recv(in, frame, sizeof frame, MSG_DONTWAIT)) >= 0) {
            uint32_t flow = flow_of(frame, n, pass, flows);
            if (flow != UINT32_MAX && flow < next && us[flow] == -1) {
                us[flow] = (double)(now - sent[flow]) / 1000;
                last = now;
                waiting--;
            }
        }
        for (; oldest < next; oldest++) {
            if (us[oldest] == -1) {
                if (now - sent[oldest] < (uint64_t)timeout_ms * 1000000u)
                    break;
                us[oldest] = -2; /* too late */
                waiting--;
            }
        }
    }
    printf("%s[", pass == 0 ? "" : ", ");
    for (uint32_t i = 0; i < flows; i++)
        printf("%s%.1f", i == 0 ? "" : ", ", us[i] < 0 ? -1 : us[i]);
    printf("]");
    double elapsed = last == 0 ? 0 : (double)(last - sent[0]) / 1000;
    free(sent);
    free(us);
    return elapsed;
}

static void parse_macs(const char *text)
{
    uint8_t *m = &macs[0][0];
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx,%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", m, m + 1, m + 2,
               m + 3, m + 4, m + 5, m + 6, m + 7, m + 8, m + 9, m + 10, m + 11) != 12)
        die("'%s' are no two MACs", text);
}

static void parse_ips(const char *text)
{
    char first[32], second[32];
    if (sscanf(text, "%31[^,],%31s", first, second) != 2 ||
        inet_pton(AF_INET, first, &ips[0]) != 1 || inet_pton(AF_INET, second, &ips[1]) != 1)
        die("'%s' are no two IPv4 addresses", text);
}

int main(int argc, char **argv)
{
    const char *from = NULL, *to = NULL;
    uint32_t flows = 0, passes = 1, window = 1, pause_us = 0;
    int timeout_ms = 1000;
    for (int i = 1; i < argc; i += 2) {
        const char *option = argv[i], *value = argv[i + 1];
        if (value == NULL)
            die("%s wants a value", option);
        if (strcmp(option, "--from") == 0)
            from = value;
        else if (strcmp(option, "--to") == 0)
            to = value;
        else if (strcmp(option, "--macs") == 0)
            parse_macs(value);
        else if (strcmp(option, "--ips") == 0)
            parse_ips(value);
        else if (strcmp(option, "--source-port") == 0)
            source_port = (uint16_t)atoi(value);
        else if (strcmp(option, "--first-port") == 0)
            first_port = (uint16_t)atoi(value);
        else if (strcmp(option, "--flows") == 0)
            flows = (uint32_t)atoi(value);
        else if (strcmp(option, "--passes") == 0)
            passes = (uint32_t)atoi(value);
        else if (strcmp(option, "--window") == 0)
            window = (uint32_t)atoi(value);
        else if (strcmp(option, "--pause-us") == 0)
            pause_us = (uint32_t)atoi(value);
        else if (strcmp(option, "--timeout-ms") == 0)
            timeout_ms = atoi(value);
        else
            die("unknown option %s", option);
    }
    if (from == NULL || to == NULL || flows == 0 || window == 0 || timeout_ms <= 0 ||
        first_port + flows > 65536)
        die("--from, --to and --flows are needed, and ports up to 65535");
    int out = open_in(from, false), in = open_in(to, true);
    double *elapsed = allocate(passes, sizeof *elapsed);
    printf("{\"passes_us\": [");
    for (uint32_t pass = 0; pass < passes; pass++)
        elapsed[pass] = run_pass(out, in, pass, flows, window, pause_us, timeout_ms);
    printf("], \"elapsed_us\": [");
    for (uint32_t pass = 0; pass < passes; pass++)
        printf("%s%.1f", pass == 0 ? "" : ", ", elapsed[pass]);
    printf("]}\n");
    free(elapsed);
    return 0;
}
