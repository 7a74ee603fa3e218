/* Opens a TCP connection, asks one question, reads the answer and the end, closes; and again.
 *
 * usage: crr_client --to IP --port N --parallel N --seconds S --max N --timeout-ms N
 *
 * PARALLEL connections are under way at once. A transaction is timed from before connect(2) until the
 * end of the stream after the answer was read; those that end within SECONDS count. When the time is
 * over, or MAX were begun, no new one is begun, and those under way get TIMEOUT each to end. An error is
 * a connection that is refused or reset, an answer that is not the one to the question, or one that took
 * longer than TIMEOUT. After MAX_ERRORS it gives up.
 *
 * Each connection has the next source port, through all that need no privilege. Left to itself, Linux
 * comes back to a port after a few thousand connections, which a switch would know from before.
 *
 * The result is one JSON object. Its histogram has pairs of microseconds and a count: transactions that
 * took less than that and not less than the pair before; sixteen steps for each doubling. */
#define _GNU_SOURCE
#include "crr.h"

enum { FIRST_SOURCE = 1024, SOURCES = 65536 - FIRST_SOURCE };
enum { MAX_PARALLEL = 1024, MAX_ERRORS = 1000, STEPS = 16, BUCKETS = 64 * STEPS, TICK_MS = 50 };

enum state { IDLE, CONNECTING, ASKED };

struct slot {
    int fd;
    enum state state;
    uint32_t turn; /* tells an event of an earlier connection of this slot */
    uint8_t got;
    uint64_t number, began;
    uint8_t answer[MESSAGE_BYTES];
};

static struct sockaddr_in server;
static struct slot slots[MAX_PARALLEL];
static int epoll;
static uint64_t begun, under_way, finished, late, most, until, timeout_ns;
static uint32_t source; /* of the next connection, counted from FIRST_SOURCE */
static uint64_t refused, bad_answers, timeouts, retransmissions;
static uint64_t histogram[BUCKETS];
static float *took_us;

/* Steps of equal size between one power of two nanoseconds and the next. */
static int bucket_of(uint64_t ns)
{
    if (ns < STEPS)
        return 0;
    int power = 63 - __builtin_clzll(ns);
    return power * STEPS + (int)(ns >> (power - 4) & (STEPS - 1));
}

static double bucket_end_us(int bucket)
{
    return (double)((uint64_t)1 << bucket / STEPS) * (STEPS + bucket % STEPS + 1) / STEPS / 1000;
}

static bool may_begin(uint64_t now)
{
    return now < until && begun < most && refused + bad_answers + timeouts < MAX_ERRORS;
}

static void bind_to_next_source(int fd)
{
    struct sockaddr_in own = {.sin_family = AF_INET};
    for (int i = 0; i < SOURCES; i++) {
        own.sin_port = htons((uint16_t)(FIRST_SOURCE + source));
        source = (source + 1) % SOURCES;
        if (bind(fd, (struct sockaddr *)&own, sizeof own) == 0)
            return;
        if (errno != EADDRINUSE)
            break;
    }
    die("bind: %s", strerror(errno));
}

static void begin(uint32_t index)
{
    struct slot *one = &slots[index];
    uint64_t now = now_ns();
    if (!may_begin(now)) {
        one->state = IDLE;
        return;
    }
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (one->fd < 0)
        die("socket: %s", strerror(errno));
    bind_to_next_source(one->fd);
    one->turn++;
    one->state = CONNECTING;
    one->got = 0;
    one->number = begun++;
    one->began = now;
    under_way++;
    /* Before connect, so that its outcome is an edge; once for the connection's life. */
    watch_or_die(epoll, one->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                 (uint64_t)one->turn << 32 | index);
    if (connect(one->fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
}

/* Close a slot's connection, however it went, and begin the next. */
static void next(uint32_t index, uint64_t *error)
{
    struct slot *one = &slots[index];
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (getsockopt(one->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0)
        retransmissions += info.tcpi_total_retrans;
    close(one->fd);
    under_way--;
    if (error != NULL)
        (*error)++;
    begin(index);
}

static void finish(uint32_t index)
{
    struct slot *one = &slots[index];
    uint8_t wanted[MESSAGE_BYTES];
    put_answer(wanted, one->number);
    if (one->got != MESSAGE_BYTES || memcmp(wanted, one->answer, MESSAGE_BYTES) != 0) {
        next(index, &bad_answers);
        return;
    }
    uint64_t now = now_ns(), ns = now - one->began;
    if (now > until) {
        late++;
    } else {
        histogram[bucket_of(ns)]++;
        took_us[finished++] = (float)ns / 1000;
    }
    next(index, NULL);
}

static void go_on(uint32_t index)
{
    struct slot *one = &slots[index];
    if (one->state == CONNECTING) {
        uint8_t question[MESSAGE_BYTES];
        put_question(question, one->number);
        ssize_t n = send(one->fd, question, sizeof question, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINPROGRESS || errno == ENOTCONN))
            return;
        if (n != (ssize_t)sizeof question) {
            next(index, &refused);
            return;
        }
        one->state = ASKED;
    }
    for (;;) {
        uint8_t more[MESSAGE_BYTES + 1];
        ssize_t n = recv(one->fd, more, sizeof more, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            next(index, &refused);
            return;
        }
        if (n == 0) {
            finish(index);
            return;
        }
        if (one->got + n > MESSAGE_BYTES) {
            next(index, &bad_answers);
            return;
        }
        memcpy(one->answer + one->got, more, (size_t)n);
        one->got = (uint8_t)(one->got + n);
    }
}

static void look_for_timeouts(uint32_t parallel)
{
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < parallel; i++)
        if (slots[i].state != IDLE && now - slots[i].began > timeout_ns)
            next(i, &timeouts);
}

static int by_size(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

static double percentile(double share)
{
    uint64_t at = (uint64_t)((double)finished * share);
    return finished == 0 ? 0 : (double)took_us[at < finished ? at : finished - 1];
}

static void report(double seconds, double cpu_s)
{
    qsort(took_us, finished, sizeof *took_us, by_size);
    printf("{\"transactions\": %llu, \"late\": %llu, \"refused\": %llu, \"bad_answers\": %llu, "
           "\"timeouts\": %llu, \"retransmissions\": %llu, \"seconds\": %.6f, \"cpu_s\": %.4f",
           (unsigned long long)finished, (unsigned long long)late, (unsigned long long)refused,
           (unsigned long long)bad_answers, (unsigned long long)timeouts,
           (unsigned long long)retransmissions, seconds, cpu_s);
    printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f",
           percentile(0.5), percentile(0.99), percentile(0.999), percentile(1));
    printf(", \"histogram_us\": [");
    const char *before = "";
    for (int i = 0; i < BUCKETS; i++) {
        if (histogram[i] == 0)
            continue;
        printf("%s[%.1f, %llu]", before, bucket_end_us(i), (unsigned long long)histogram[i]);
        before = ", ";
    }
    printf("]}\n");
}

int main(int argc, char **argv)
{
    uint32_t parallel = 1;
    double seconds = 0;
    server.sin_family = AF_INET;
    for (int i = 1; i < argc; i += 2) {
        const char *option = argv[i], *value = argv[i + 1];
        if (value == NULL)
            die("%s wants a value", option);
        if (strcmp(option, "--to") == 0) {
            if (inet_pton(AF_INET, value, &server.sin_addr) != 1)
                die("'%s' is no IPv4 address", value);
        } else if (strcmp(option, "--port") == 0) {
            server.sin_port = htons((uint16_t)atoi(value));
        } else if (strcmp(option, "--parallel") == 0) {
            parallel = (uint32_t)atoi(value);
        } else if (strcmp(option, "--seconds") == 0) {
            seconds = atof(value);
        } else if (strcmp(option, "--max") == 0) {
            most = (uint64_t)atoll(value);
        } else if (strcmp(option, "--timeout-ms") == 0) {
            timeout_ns = (uint64_t)atoll(value) * 1000000u;
        } else {
            die("unknown option %s", option);
        }
    }
    if (server.sin_port == 0 || parallel < 1 || parallel > MAX_PARALLEL || seconds <= 0 ||
        seconds > 600 || most < 1 || most > 10000000 || timeout_ns == 0)
        die("--to, --port, --seconds (to 600), --max (to 10^7) and --timeout-ms are needed");
    /* Runs that follow each other begin elsewhere. */
    source = (uint32_t)getpid() * 4096u % SOURCES;
    took_us = allocate(most, sizeof *took_us);
    epoll = epoll_or_die();
    double cpu_before = cpu_seconds();
    uint64_t start = now_ns(), looked = start;
    until = start + (uint64_t)(seconds * 1e9);
    for (uint32_t i = 0; i < parallel; i++)
        begin(i);
    struct epoll_event events[MAX_PARALLEL];
    double cpu_s = 0;
    while (under_way > 0) {
        int n = epoll_wait(epoll, events, MAX_PARALLEL, TICK_MS);
        for (int i = 0; i < n; i++) {
            uint32_t index = (uint32_t)events[i].data.u64;
            if (slots[index].state != IDLE && slots[index].turn == events[i].data.u64 >> 32)
                go_on(index);
        }
        if (now_ns() - looked > TICK_MS * 1000000u) {
            look_for_timeouts(parallel);
            looked = now_ns();
        }
        if (cpu_s == 0 && now_ns() >= until)
            cpu_s = cpu_seconds() - cpu_before;
    }
    /* All were begun and ended before the time was over. */
    uint64_t over = now_ns();
    if (over < until) {
        cpu_s = cpu_seconds() - cpu_before;
        seconds = (double)(over - start) / 1e9;
    }
    report(seconds, cpu_s);
    return 0;
}
