/* NetMail's agents on UDP port 689, written from docs/legacy-udp.md alone: the structs stand as C
 * declares them and the compiler lays them out, in 64 bits and, with -m32, in 32.
 *
 *   legacy_udp_client PORT HASHFILE [-s SOURCE] WORD...
 *
 *   sizes                         sizes of the structs
 *   store ADDRESS                 plain protocol; NAME may be empty
 *   store-name ADDRESS NAME
 *   check ADDRESS                 prints the result
 *   check-name ADDRESS            prints the result and the name
 *   connect ADDRESS               prints result, requireAuth, comment
 *   relay ADDRESS                 prints result, user
 *   notify EVENT ADDRESS [USER]   prints the result
 *   then WORD... again: several requests in one process, which keeps its password. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* ---- MD5 (RFC 1321) ---- */

static const unsigned char shifts[64] = {
    7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 5, 9, 14, 20, 5, 9,
    14, 20, 5, 9, 14, 20, 5, 9, 14, 20, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23,
    4, 11, 16, 23, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21};
static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

static uint32_t rotated(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static void md5_block(uint32_t state[4], const unsigned char *block)
{
    uint32_t word[16], a = state[0], b = state[1], c = state[2], d = state[3];
    for (int i = 0; i < 16; i++)
        word[i] = block[4 * i] | block[4 * i + 1] << 8 | block[4 * i + 2] << 16
                  | (uint32_t)block[4 * i + 3] << 24;
    for (int i = 0; i < 64; i++) {
        uint32_t f;
        int k;
        if (i < 16) {
            f = (b & c) | (~b & d);
            k = i;
        } else if (i < 32) {
            f = (d & b) | (~d & c);
            k = (5 * i + 1) % 16;
        } else if (i < 48) {
            f = b ^ c ^ d;
            k = (3 * i + 5) % 16;
        } else {
            f = c ^ (b | ~d);
            k = 7 * i % 16;
        }
        uint32_t next = b + rotated(a + f + sines[i] + word[k], shifts[i]);
        a = d, d = c, c = b, b = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

static void md5_hex(const unsigned char *data, size_t length, char hex[33])
{
    static unsigned char padded[1024];
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    size_t whole = (length + 9 + 63) / 64 * 64;
    memset(padded, 0, sizeof padded);
    memcpy(padded, data, length);
    padded[length] = 0x80;
    for (int i = 0; i < 8; i++)
        padded[whole - 8 + i] = (uint64_t)length * 8 >> (8 * i);
    for (size_t at = 0; at < whole; at += 64)
        md5_block(state, padded + at);
    for (int i = 0; i < 16; i++)
        sprintf(hex + 2 * i, "%02x", (unsigned)(state[i / 4] >> (8 * (i % 4)) & 0xff));
}

/* ---- the structs ---- */

struct plain {
    unsigned long request, address, nameLen, counter;
    unsigned char name[1];
};

struct plain_buffer {
    unsigned long request, address, nameLen, counter;
    unsigned char name[1];
    char room[255 + sizeof(unsigned long)];
};

enum { STORE, CHECK, STORE_NAME, CHECK_NAME };

struct request {
    char pass[33];
    unsigned long command;
    unsigned long address;
    char identity[17];
    char event[17];
    union {
        struct { char user[257]; } authenticated;
        struct { unsigned long recipients; } delivered, spam;
        struct { unsigned long local, invalid, remote; } received;
        struct { unsigned long recipients; char name[257]; } virus;
        struct { char description[257]; } dos;
        struct { unsigned long default_result; } policy;
    } detail;
};

struct reply {
    unsigned long result;
    char comment[129];
    union {
        char user[257];
        char salt[257];
        struct { int requireAuth; } connect;
    } detail;
};

enum { VERIFY = 1, NOTIFY = 2 };
enum { ALLOWED = 3, MUST_AUTH = 4 };

/* ---- the client library ---- */

static struct sockaddr_in server = {.sin_family = AF_INET}, source = {.sin_family = AF_INET};
static unsigned char access_hash[128];
static char password[33];

static int fresh_socket(void)
{
    struct timeval patience = {.tv_sec = 19};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (fd < 0 || bind(fd, (struct sockaddr *)&source, sizeof source) < 0) {
        perror("socket");
        exit(2);
    }
    return fd;
}

static unsigned long address_of(const char *text)
{
    struct in_addr address;
    if (!inet_aton(text, &address)) {
        fprintf(stderr, "%s is no address\n", text);
        exit(2);
    }
    return address.s_addr; /* as it lies in memory */
}

static void send_all(int fd, const void *data, size_t length)
{
    if (sendto(fd, data, length, 0, (struct sockaddr *)&server, sizeof server) != (ssize_t)length) {
        perror("sendto");
        exit(2);
    }
}

static void plain(int number, const char *address, const char *name)
{
    struct plain_buffer buffer;
    size_t length = sizeof(struct plain);
    int fd = fresh_socket();
    memset(&buffer, 0xa5, sizeof buffer); /* whatever lay on the stack */
    buffer.request = number;
    buffer.address = address_of(address);
    if (number == STORE_NAME) {
        buffer.nameLen = strlen(name);
        memcpy(buffer.name, name, buffer.nameLen);
        length += buffer.nameLen;
    } else if (number != STORE) {
        length += 256;
    }
    send_all(fd, &buffer, length);
    if (number == CHECK || number == CHECK_NAME) {
        unsigned char got[1024];
        ssize_t n = recv(fd, got, sizeof got, 0);
        if (n < 0) {
            printf("silence\n");
        } else if ((size_t)n != sizeof(struct plain) + 256) {
            printf("a reply of %zd octets\n", n);
        } else {
            memcpy(&buffer, got, sizeof(struct plain) + 256);
            printf("%lu %.*s\n", buffer.request, (int)buffer.nameLen, (char *)buffer.name);
        }
    }
    close(fd);
}

/* Only MUST_AUTH is tried again, four datagrams in all, each from a new socket. */
static int ask(struct request *request, struct reply *reply)
{
    for (int attempt = 0; attempt < 4; attempt++) {
        int fd = fresh_socket();
        memcpy(request->pass, password, sizeof request->pass);
        send_all(fd, request, sizeof *request);
        ssize_t n = recv(fd, reply, sizeof *reply, 0); /* the buffer is not cleared before */
        close(fd);
        if (n < 0)
            return 200;
        if ((size_t)n != sizeof *reply) {
            fprintf(stderr, "a reply of %zd octets, not %zu\n", n, sizeof *reply);
            exit(1);
        }
        if (reply->result != MUST_AUTH)
            return reply->result;
        unsigned char salted[257 + 128];
        size_t salt = strlen(reply->detail.salt);
        memcpy(salted, reply->detail.salt, salt);
        memcpy(salted + salt, access_hash, sizeof access_hash);
        md5_hex(salted, salt + sizeof access_hash, password);
    }
    return MUST_AUTH;
}

static struct request event(int command, const char *name, const char *address)
{
    struct request request;
    memset(&request, 0, sizeof request);
    request.command = command;
    request.address = address_of(address);
    strncpy(request.event, name, sizeof request.event - 1);
    return request;
}

static void verify(const char *name, const char *address, struct reply *reply)
{
    struct request request = event(VERIFY, name, address);
    int connect = strcmp(name, "CONNECT") == 0;
    request.detail.policy.default_result = connect ? ALLOWED : MUST_AUTH;
    int result = ask(&request, reply);
    if (connect)
        printf("%d %d %s\n", result, result == ALLOWED ? reply->detail.connect.requireAuth : 0,
               result == 200 ? "" : reply->comment);
    else
        printf("%d %s\n", result, result == ALLOWED ? reply->detail.user : "");
}

static void notify(const char *name, const char *address, const char *user, struct reply *reply)
{
    struct request request = event(NOTIFY, name, address);
    if (user)
        strncpy(request.detail.authenticated.user, user, 256);
    else
        request.detail.delivered.recipients = 3;
    printf("%d\n", ask(&request, reply));
}

static void read_hash(const char *path)
{
    FILE *file = fopen(path, "r");
    for (int i = 0; i < 128; i++) {
        unsigned octet;
        if (!file || fscanf(file, "%2x", &octet) != 1) {
            fprintf(stderr, "%s is no access hash\n", path);
            exit(2);
        }
        access_hash[i] = octet;
    }
    fclose(file);
}

int main(int argc, char **argv)
{
    struct reply reply;
    if (argc < 4)
        return 2;
    memset(&reply, 0x5a, sizeof reply);
    server.sin_port = htons(atoi(argv[1]));
    inet_aton("127.0.0.1", &server.sin_addr);
    read_hash(argv[2]);
    for (char **word = argv + 3; *word; word++) {
        if (!strcmp(*word, "-s")) {
            inet_aton(*++word, &source.sin_addr);
        } else if (!strcmp(*word, "sizes")) {
            printf("%zu %zu %zu\n", sizeof(struct plain), sizeof(struct request), sizeof reply);
        } else if (!strcmp(*word, "store")) {
            plain(STORE, *++word, "");
        } else if (!strcmp(*word, "store-name")) {
            plain(STORE_NAME, word[1], word[2]);
            word += 2;
        } else if (!strcmp(*word, "check")) {
            plain(CHECK, *++word, "");
        } else if (!strcmp(*word, "check-name")) {
            plain(CHECK_NAME, *++word, "");
        } else if (!strcmp(*word, "connect")) {
            verify("CONNECT", *++word, &reply);
        } else if (!strcmp(*word, "relay")) {
            verify("RELAY", *++word, &reply);
        } else if (!strcmp(*word, "notify")) {
            int is_login = !strcasecmp(word[1], "AUTHENTICATED");
            notify(word[1], word[2], is_login ? word[3] : NULL, &reply);
            word += is_login ? 3 : 2;
        } else {
            fprintf(stderr, "what is %s?\n", *word);
            return 2;
        }
        fflush(stdout);
    }
    return 0;
}
