/* Answers one question of each TCP connection, then closes it.
 *
 * usage: crr_server --address IP --ports FIRST,LAST --for-s N
 *
 * The server closes first, as HTTP/1.0 does, so that TIME_WAIT (RFC 9293 section 3.6.1) is its own and no
 * port of the client's is held. A line "ready" when it listens; when it is told to end (SIGTERM), or its
 * time is over, one JSON object: connections answered, those whose question was wrong or cut short, and
 * seconds of processor time. */
#define _GNU_SOURCE
#include "crr.h"

enum { MAX_FD = 65536, EVENTS = 256, BACKLOG = 4096 };

struct asker {
    uint8_t question[MESSAGE_BYTES];
    uint8_t got;
};

static struct asker *askers;
static uint64_t served, wrong;
static volatile sig_atomic_t ended;

static void end(int number)
{
    (void)number;
    ended = 1;
}

static int listen_on(const struct in_addr *address, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = *address};
    /* Connections of an earlier server in TIME_WAIT are no hindrance. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&name, sizeof name) != 0 || listen(fd, BACKLOG) != 0)
        die("port %u: %s", port, strerror(errno));
    return fd;
}

static void accept_all(int epoll, int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FD)
            die("more than %d connections at once", MAX_FD);
        askers[fd].got = 0;
        watch_or_die(epoll, fd, EPOLLIN, (uint64_t)fd);
    }
}

/* Whether the question is as a client of ours makes it. */
static bool is_question(const uint8_t *question)
{
    uint8_t wanted[MESSAGE_BYTES];
    put_question(wanted, get64(question + 8));
    return memcmp(question, wanted, MESSAGE_BYTES) == 0;
}

static void serve(int fd)
{
    struct asker *one = &askers[fd];
    ssize_t n = recv(fd, one->question + one->got, (size_t)(MESSAGE_BYTES - one->got), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        one->got = (uint8_t)(one->got + n);
        if (one->got < MESSAGE_BYTES)
            return;
    }
    uint8_t answer[MESSAGE_BYTES];
    if (n > 0 && is_question(one->question)) {
        put_answer(answer, get64(one->question + 8));
        if (send(fd, answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer)
            served++;
        else
            wrong++;
    } else {
        wrong++;
    }
    close(fd);
}

int main(int argc, char **argv)
{
    struct in_addr address = {0};
    unsigned first = 0, last = 0;
    int for_s = 600;
    for (int i = 1; i < argc; i += 2) {
        const char *option = argv[i], *value = argv[i + 1];
        if (value == NULL)
            die("%s wants a value", option);
        if (strcmp(option, "--address") == 0) {
            if (inet_pton(AF_INET, value, &address) != 1)
                die("'%s' is no IPv4 address", value);
        } else if (strcmp(option, "--ports") == 0) {
            if (sscanf(value, "%u,%u", &first, &last) != 2)
                die("'%s' are no two ports", value);
        } else if (strcmp(option, "--for-s") == 0) {
            for_s = atoi(value);
        } else {
            die("unknown option %s", option);
        }
    }
    if (first == 0 || last < first || last > 65535 || last - first >= 1000 || for_s < 1)
        die("--ports FIRST,LAST is needed, at most 1000 of them");
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    askers = allocate(MAX_FD, sizeof *askers);
    int epoll = epoll_or_die();
    /* Listeners are marked by the upper half of the mark. */
    for (unsigned port = first; port <= last; port++) {
        int fd = listen_on(&address, (uint16_t)port);
        watch_or_die(epoll, fd, EPOLLIN, (uint64_t)1 << 32 | (uint64_t)fd);
    }
    printf("ready\n");
    fflush(stdout);
    uint64_t until = now_ns() + (uint64_t)for_s * 1000000000u;
    struct epoll_event events[EVENTS];
    while (!ended && now_ns() < until) {
        int n = epoll_wait(epoll, events, EVENTS, 200);
        for (int i = 0; i < n; i++) {
            int fd = (int)(uint32_t)events[i].data.u64;
            if (events[i].data.u64 >> 32)
                accept_all(epoll, fd);
            else
                serve(fd);
        }
    }
    printf("{\"served\": %llu, \"wrong\": %llu, \"cpu_s\": %.4f}\n", (unsigned long long)served,
           (unsigned long long)wrong, cpu_seconds());
    return 0;
}
