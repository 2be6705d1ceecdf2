/* Sends datagrams to a server and counts the replies: a window of them is always under way.
 *
 *   udp_load HOST PORT FILE SIZE WINDOW SOCKETS SECONDS [RESULT]
 *
 * FILE holds requests of SIZE octets each, sent in turn. Prints how many replies came and how many
 * may be lost; with RESULT a reply whose first octet is another ends the run. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define REPLY 512

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "udp_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static char *requests;
static size_t size, count, next;

static void send_some(int fd, int number)
{
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < number; i++) {
        parts[i].iov_base = requests + size * (next++ % count);
        parts[i].iov_len = size;
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (int sent = 0; sent < number;) {
        int n = sendmmsg(fd, messages + sent, number - sent, 0);
        if (n < 0)
            fail("sendmmsg");
        sent += n;
    }
}

static int receive_some(int fd, int result)
{
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    static char replies[BATCH][REPLY];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        parts[i].iov_base = replies[i];
        parts[i].iov_len = REPLY;
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0 && errno != EAGAIN)
        fail("recvmmsg");
    for (int i = 0; i < n && result >= 0; i++)
        if (replies[i][0] != result) {
            fprintf(stderr, "udp_load: result %d, not %d\n", replies[i][0], result);
            exit(1);
        }
    return n < 0 ? 0 : n;
}

int main(int argc, char **argv)
{
    if (argc < 8) {
        fprintf(stderr, "usage: udp_load HOST PORT FILE SIZE WINDOW SOCKETS SECONDS [RESULT]\n");
        return 2;
    }
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    FILE *file = fopen(argv[3], "rb");
    if (!file)
        fail(argv[3]);
    size = atoi(argv[4]);
    requests = malloc(1 << 24);
    count = fread(requests, 1, 1 << 24, file) / size;
    int window = atoi(argv[5]), sockets = atoi(argv[6]);
    double seconds = atof(argv[7]);
    int result = argc > 8 ? atoi(argv[8]) : -1;
    struct pollfd *polled = calloc(sockets, sizeof *polled);
    double *last = calloc(sockets, sizeof *last);
    for (int i = 0; i < sockets; i++) {
        int fd = polled[i].fd = socket(AF_INET, SOCK_DGRAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
            fail("socket");
        polled[i].events = POLLIN;
        for (int sent = 0; sent < window; sent += BATCH)
            send_some(fd, window - sent < BATCH ? window - sent : BATCH);
        last[i] = now();
    }
    double start = now(), end = start + seconds;
    long replies = 0, lost = 0;
    for (double t = start; t < end; t = now()) {
        if (poll(polled, sockets, 100) < 0)
            fail("poll");
        for (int i = 0; i < sockets; i++) {
            int n = receive_some(polled[i].fd, result);
            if (n > 0) {
                send_some(polled[i].fd, n);
                last[i] = t;
                replies += n;
            } else if (t - last[i] > 0.5) { /* lost on the way: fill the window again */
                lost += window;
                send_some(polled[i].fd, window < BATCH ? window : BATCH);
                last[i] = t;
            }
        }
    }
    printf("%ld %ld\n", replies, lost);
    return 0;
}
