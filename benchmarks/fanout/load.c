/*
 * A load client for server-sent events: ten thousand connections from one thread, so light that the server under test
 * is what is measured. Commands come as lines on stdin (fields separated by tabs), answers leave as JSON lines:
 *
 *   open   GROUP COUNT PORT IN_FLIGHT PATH [HEADER…]   connections to 127.0.0.1:PORT, IN_FLIGHT of them waiting for
 *                                                      their status at a time; answered once each has 200 or failed
 *   window GROUP FIRST EVENTS MILLISECONDS             receipts of the events numbered FIRST … FIRST + EVENTS - 1 on
 *                                                      every connection; answered when all are there, or the time is up
 *   replay GROUP FIRST EVENTS MILLISECONDS             the same, but answered with when each connection had all of them
 *   end    GROUP                                       the window ends now, whatever has arrived
 *   close  GROUP                                       resets the group's connections (so none lingers in TIME_WAIT)
 *
 * An event is known by a mark somewhere in it: @sent=<nanoseconds of CLOCK_MONOTONIC>;n=<number>@. Numbers grow by one;
 * a number that does not follow its predecessor on the same connection is counted as disordered.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define GROUPS 8
#define FIELDS 32
#define PERCENTS 101 /* the quantiles 0, 1 … 100 % of each event's receipts */

enum phase { CONNECTING, STATUS, HEADERS, STREAMING, ENDED };

struct conn {
    int fd;
    uint32_t index;
    struct group *group;
    enum phase phase;
    uint8_t matched; /* of the status line, then of the blank line after the headers */
    uint8_t mark;    /* where in the mark the parser is, see in_mark() */
    uint64_t sent, number, last;
};

/* The receipts that are waited for; times[event][connection] in nanoseconds, 0: not there yet. */
struct window {
    bool on, replay;
    uint64_t first, events, missing, deadline;
    uint64_t *times, *sent;
    double cpu;
};

struct group {
    int number, count, started, opened, failed, in_flight, limit, port, lost;
    uint32_t source;
    struct conn *conns;
    char request[8192];
    size_t request_size;
    uint64_t first_syn, last_header, duplicates, disordered;
    char refusal[64];
    struct window window;
};

static struct group groups[GROUPS];
static int poller;
static uint32_t opens;

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void *zeroed(size_t count, size_t size) {
    volatile char *memory = calloc(count ? count : 1, size);
    if (!memory) die("memory");
    for (size_t at = 0; at < count * size; at += 4096) memory[at] = 0; /* the pages are there before anything is timed */
    return (void *)memory;
}

/* ---- Connections ---- */

static void report_opened(struct group *group) {
    double seconds = (double)(group->last_header - group->first_syn) / 1e9;
    printf("{\"opened\":%d,\"count\":%d,\"failed\":%d,\"seconds\":%.6f,\"first_syn\":%llu,\"refusal\":\"%s\"}\n",
           group->number, group->opened, group->failed, seconds, (unsigned long long)group->first_syn, group->refusal);
}

static void settled(struct group *group) {
    group->in_flight--;
    if (group->opened + group->failed == group->count) report_opened(group);
}

static void end(struct conn *conn) {
    struct group *group = conn->group;
    enum phase before = conn->phase;
    close(conn->fd);
    conn->fd = -1;
    conn->phase = ENDED;
    if (before == STREAMING) {
        group->lost++;
        return;
    }
    group->failed++;
    settled(group);
}

static void start(struct group *group) {
    struct conn *conn = &group->conns[group->started];
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(group->source)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)group->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) die("socket (is the limit of open files high enough?)");
    setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(conn->fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    conn->index = (uint32_t)group->started++;
    conn->group = group;
    group->in_flight++;
    if (!group->first_syn) group->first_syn = now_ns();
    if (connect(conn->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        end(conn);
        return;
    }
    struct epoll_event wanted = {.events = EPOLLOUT, .data.ptr = conn};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, conn->fd, &wanted)) die("epoll_ctl");
}

static void start_more(struct group *group) {
    while (group->started < group->count && group->in_flight < group->limit) start(group);
}

/* A request is far smaller than an empty send buffer: it goes in one piece or the connection is dead. */
static void connected(struct conn *conn) {
    struct group *group = conn->group;
    ssize_t sent = send(conn->fd, group->request, group->request_size, MSG_NOSIGNAL);
    if (sent != (ssize_t)group->request_size) {
        end(conn);
        return;
    }
    conn->phase = STATUS;
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = conn};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, conn->fd, &wanted)) die("epoll_ctl");
}

/* ---- What is received ---- */

static void received(struct conn *conn, uint64_t at) {
    struct group *group = conn->group;
    struct window *window = &group->window;
    if (conn->last && conn->number != conn->last + 1) group->disordered++;
    conn->last = conn->number;
    if (!window->on || conn->number < window->first || conn->number >= window->first + window->events) return;
    uint64_t event = conn->number - window->first;
    uint64_t *slot = &window->times[event * (uint64_t)group->count + conn->index];
    if (*slot) {
        group->duplicates++;
        return;
    }
    *slot = at;
    window->sent[event] = conn->sent;
    window->missing--;
}

static const char MARK[] = "@sent=#;n=#@"; /* '#': digits */

/* One byte of a mark. The position in MARK survives the end of a read. */
static void in_mark(struct conn *conn, char byte, uint64_t at) {
    uint64_t *number = conn->mark < 7 ? &conn->sent : &conn->number;
    if (MARK[conn->mark] == '#') {
        if (byte >= '0' && byte <= '9') {
            *number = *number * 10 + (uint64_t)(byte - '0');
            return;
        }
        conn->mark++;
    }
    if (byte != MARK[conn->mark]) {
        conn->mark = byte == MARK[0];
        conn->sent = conn->number = 0;
    } else if (!MARK[++conn->mark]) {
        received(conn, at);
        conn->mark = 0;
    }
}

static void parse_body(struct conn *conn, const char *data, size_t size, uint64_t at) {
    const char *end_of_data = data + size;
    while (data < end_of_data) {
        if (conn->mark == 0) {
            data = memchr(data, MARK[0], (size_t)(end_of_data - data));
            if (!data) return;
            conn->sent = conn->number = 0;
        }
        in_mark(conn, *data++, at);
    }
}

/* Bytes used up by the status line and the headers; false: the answer was no 200. */
static bool parse_head(struct conn *conn, const char *data, size_t size, size_t *used, uint64_t at) {
    static const char ok[] = "HTTP/1.1 200", blank[] = "\r\n\r\n";
    size_t place = 0;
    for (; place < size && conn->phase != STREAMING; place++) {
        if (conn->phase == STATUS) {
            if (data[place] != ok[conn->matched++]) return false;
            if (ok[conn->matched]) continue;
            conn->phase = HEADERS;
            conn->matched = 0;
        } else if (data[place] == blank[conn->matched]) {
            if (blank[++conn->matched]) continue;
            conn->phase = STREAMING;
            conn->group->opened++;
            conn->group->last_header = at;
            settled(conn->group);
        } else {
            conn->matched = data[place] == '\r';
        }
    }
    *used = place;
    return true;
}

static void remember_refusal(struct group *group, const char *data, size_t size) {
    size_t length = size < sizeof group->refusal - 1 ? size : sizeof group->refusal - 1;
    for (size_t i = 0; i < length && data[i] >= ' '; i++) group->refusal[i] = data[i] == '"' || data[i] == '\\' ? '\'' : data[i];
}

static void readable(struct conn *conn) {
    static char buffer[65536];
    ssize_t size;
    do {
        size = recv(conn->fd, buffer, sizeof buffer, 0);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (size <= 0) {
            end(conn);
            return;
        }
        uint64_t at = now_ns();
        size_t used = 0;
        if (conn->phase != STREAMING && !parse_head(conn, buffer, (size_t)size, &used, at)) {
            remember_refusal(conn->group, buffer, (size_t)size);
            end(conn);
            return;
        }
        parse_body(conn, buffer + used, (size_t)size - used, at);
    } while (size == (ssize_t)sizeof buffer);
}

static void ready(struct conn *conn, uint32_t events) {
    if (conn->phase == ENDED) return;
    if (conn->phase == CONNECTING) {
        if (events & (EPOLLERR | EPOLLHUP)) end(conn);
        else connected(conn);
    } else {
        readable(conn);
    }
}

/* ---- Reports ---- */

static int by_time(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void print_curve(const char *name, const uint64_t *sorted, int count, uint64_t since) {
    printf("\"%s\":[", name);
    for (int percent = 0; count && percent < PERCENTS; percent++) {
        int rank = (int)((long long)(count - 1) * percent / (PERCENTS - 1));
        printf("%s%llu", percent ? "," : "", (unsigned long long)(sorted[rank] - since));
    }
    printf("]");
}

static void report_event(struct window *window, uint64_t event, int count) {
    uint64_t *times = window->times + event * (uint64_t)count;
    qsort(times, (size_t)count, sizeof *times, by_time);
    int absent = 0;
    while (absent < count && !times[absent]) absent++;
    uint64_t first = absent < count ? times[absent] : 0;
    printf("%s{\"n\":%llu,\"sent\":%llu,\"received\":%d,\"first\":%llu,", event ? "," : "",
           (unsigned long long)(window->first + event), (unsigned long long)window->sent[event], count - absent,
           (unsigned long long)first);
    print_curve("curve", times + absent, count - absent, first);
    printf("}");
}

/* A connection is served once it has all of its events. Cheap, as others are being timed meanwhile. */
static void report_served(struct window *window, const struct group *group) {
    uint64_t *served = zeroed((size_t)group->count, sizeof *served);
    int count = 0;
    for (int i = 0; i < group->count; i++) {
        uint64_t latest = 0, all = 1;
        for (uint64_t event = 0; event < window->events && all; event++) {
            all = window->times[event * (uint64_t)group->count + (uint64_t)i];
            if (all > latest) latest = all;
        }
        if (all) served[count++] = latest;
    }
    qsort(served, (size_t)count, sizeof *served, by_time);
    printf("\"all\":%d,", count);
    print_curve("served", served, count, group->first_syn);
    free(served);
}

static void report_events(struct window *window, int count) {
    printf("\"events\":[");
    for (uint64_t event = 0; event < window->events; event++) report_event(window, event, count);
    printf("]");
}

static void report_window(struct group *group) {
    struct window *window = &group->window;
    double cpu = cpu_seconds() - window->cpu;
    window->on = false;
    printf("{\"window\":%d,\"connections\":%d,\"missing\":%llu,\"duplicates\":%llu,\"disordered\":%llu,\"lost\":%d,"
           "\"cpu\":%.6f,",
           group->number, group->count, (unsigned long long)window->missing, (unsigned long long)group->duplicates,
           (unsigned long long)group->disordered, group->lost, cpu);
    if (window->replay) report_served(window, group);
    else report_events(window, group->count);
    printf("}\n");
    free(window->times);
    free(window->sent);
}

/* ---- Commands ---- */

static void command_open(struct group *group, char **field, int fields) {
    int number = group->number;
    memset(group, 0, sizeof *group);
    group->number = number;
    group->count = atoi(field[2]);
    group->port = atoi(field[3]);
    group->limit = atoi(field[4]);
    group->source = 0x7f010001u + (opens++ % 200u << 8); /* 127.1.x.1: ports enough for each opening */
    group->conns = zeroed((size_t)group->count, sizeof *group->conns);
    FILE *request = fmemopen(group->request, sizeof group->request, "w");
    fprintf(request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n", field[5], group->port);
    for (int i = 6; i < fields; i++) fprintf(request, "%s\r\n", field[i]);
    fprintf(request, "\r\n");
    if (fclose(request)) die("request");
    group->request_size = strlen(group->request);
    if (group->count == 0) report_opened(group);
}

static void command_window(struct group *group, char **field) {
    struct window *window = &group->window;
    window->replay = !strcmp(field[0], "replay");
    window->first = strtoull(field[2], NULL, 10);
    window->events = strtoull(field[3], NULL, 10);
    window->missing = window->events * (uint64_t)group->count;
    window->times = zeroed(window->missing, sizeof *window->times);
    window->sent = zeroed(window->events, sizeof *window->sent);
    window->cpu = cpu_seconds();
    window->deadline = now_ns() + strtoull(field[4], NULL, 10) * 1000000u;
    window->on = true;
    printf("{\"watching\":%d}\n", group->number);
}

static void command_close(struct group *group) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    for (int i = 0; i < group->started; i++) {
        struct conn *conn = &group->conns[i];
        if (conn->phase == ENDED) continue;
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(conn->fd);
    }
    free(group->conns);
    group->conns = NULL;
    group->count = group->started = 0;
    printf("{\"closed\":%d}\n", group->number);
}

static void command(char *line) {
    char *field[FIELDS];
    int fields = 0;
    for (char *part = strtok(line, "\t"); part && fields < FIELDS; part = strtok(NULL, "\t")) field[fields++] = part;
    int number = fields > 1 ? atoi(field[1]) : -1;
    if (number < 0 || number >= GROUPS) {
        fprintf(stderr, "load: no such group\n");
        exit(2);
    }
    struct group *group = &groups[number];
    if (!strcmp(field[0], "open") && fields >= 6) command_open(group, field, fields);
    else if ((!strcmp(field[0], "window") || !strcmp(field[0], "replay")) && fields == 5) command_window(group, field);
    else if (!strcmp(field[0], "end")) group->window.deadline = 0;
    else if (!strcmp(field[0], "close")) command_close(group);
    else fprintf(stderr, "load: unknown command %s\n", field[0]);
}

/* False at the end of stdin. */
static bool read_commands(void) {
    static char pending[16384];
    static size_t held;
    ssize_t size = read(0, pending + held, sizeof pending - 1 - held);
    if (size <= 0) return false;
    held += (size_t)size;
    pending[held] = 0;
    char *line = pending, *line_end;
    while ((line_end = strchr(line, '\n'))) {
        *line_end = 0;
        command(line);
        line = line_end + 1;
    }
    held -= (size_t)(line - pending);
    memmove(pending, line, held);
    return true;
}

static void look_after(struct group *group) {
    start_more(group);
    struct window *window = &group->window;
    if (window->on && (window->missing == 0 || now_ns() > window->deadline)) report_window(group);
}

int main(void) {
    static struct epoll_event events[1024];
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands)) die("epoll");
    for (int i = 0; i < GROUPS; i++) groups[i].number = i;
    for (;;) {
        int count = epoll_wait(poller, events, 1024, 100);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        bool commanded = false;
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) ready(events[i].data.ptr, events[i].events);
            else commanded = true;
        }
        /* Last: a command may free connections that the events above point at. */
        if (commanded && !read_commands()) return 0;
        for (int i = 0; i < GROUPS; i++) look_after(&groups[i]);
        fflush(stdout);
    }
}
