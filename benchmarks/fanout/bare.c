/*
 * The limit that a server on this machine could reach: one thread, a loop of send() over all connections, nothing else.
 * Listens on 127.0.0.1:PORT (the argument); each line on stdin is sent to everybody as one HTTP chunk that holds one
 * server-sent event with that line as its data. A client that lags misses that event.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536

static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
                           "Transfer-Encoding: chunked\r\n\r\nd\r\nretry: 3000\n\n\r\n";

static int poller;
static int subscribers[MOST]; /* in the order of their coming */
static int place[MOST];       /* by descriptor: where in `subscribers`, -1: its request is awaited */
static int count;

static void die(const char *what) {
    fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int fd) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted)) die("epoll_ctl");
}

static int listening(const char *port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096)) die("listen");
    return fd;
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MOST) die("more connections than there is room for");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        place[fd] = -1;
        watch(fd);
    }
    if (errno != EAGAIN && errno != ECONNABORTED) die("accept");
}

static void leave(int fd) {
    if (place[fd] >= 0) {
        int last = subscribers[--count];
        subscribers[place[fd]] = last;
        place[last] = place[fd];
    }
    close(fd);
}

/* A request arrives in one piece here: it is smaller than a segment. */
static void readable(int fd) {
    char request[8192];
    ssize_t size = recv(fd, request, sizeof request, 0);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN) leave(fd);
    } else if (place[fd] < 0) {
        send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL);
        place[fd] = count;
        subscribers[count++] = fd;
    }
}

static void publish(const char *data, int size) {
    static char body[65536], chunk[65600];
    static unsigned long id;
    int length = snprintf(body, sizeof body, "id: %lu-0\nevent: transition\ndata: %.*s\n\n", ++id, size, data);
    int whole = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", (unsigned)length, body);
    for (int i = 0; i < count; i++) send(subscribers[i], chunk, (size_t)whole, MSG_NOSIGNAL);
}

static int read_lines(void) {
    static char pending[65536];
    static size_t held;
    ssize_t size = read(0, pending + held, sizeof pending - held);
    if (size <= 0) return 0;
    held += (size_t)size;
    char *line = pending, *end;
    while ((end = memchr(line, '\n', held - (size_t)(line - pending)))) {
        publish(line, (int)(end - line));
        line = end + 1;
    }
    held -= (size_t)(line - pending);
    memmove(pending, line, held);
    return 1;
}

int main(int arguments, char **argument) {
    static struct epoll_event events[1024];
    if (arguments != 2) return fprintf(stderr, "bare PORT\n"), 2;
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listening(argument[1]);
    watch(listener);
    watch(0);
    for (;;) {
        int found = epoll_wait(poller, events, 1024, -1);
        if (found < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < found; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (fd) readable(fd);
            else if (!read_lines()) return 0;
        }
    }
}
