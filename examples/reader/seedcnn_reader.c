/* A second reader of seedcnn bundles, written from docs/bundle-format.md alone; C99, one file and the dictionary.

   cc -O2 -std=c99 -o seedcnn_reader seedcnn_reader.c -lm                        entropy-coded and zlib bundles
   cc -O2 -std=c99 -DWITH_ZSTD -o seedcnn_reader seedcnn_reader.c -lm -lzstd     and zstd

   ./seedcnn_reader FILE checks everything and prints a line for each tensor (name, shape, SHA-256 of its expanded
   float32 bytes), for the graph, for the canned images, and for each canned picture, which it prepares by the bundle's
   rule. It ends with 0, or with 1 and a line that says what is wrong. xz is left out, which the document allows.
   Nothing is allocated before the sizes it depends on are within their limits. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef WITH_ZSTD
#include <zstd.h>
#endif
#include "dictionary.h"

enum {
    MAX_FILE_BYTES = 1 << 30,
    MAX_HEADER_BYTES = 8 << 20,
    MAX_MANIFEST_BYTES = 4 << 20,
    MAX_JSON_DEPTH = 8,
    MAX_TENSORS = 16384,
    MAX_NORMS = 4096,
    MAX_PLACES = 12,
    MAX_NAME_BYTES = 256,
    MAX_RANK = 8,
    MAX_TENSOR_BYTES = 1 << 29,
    MAX_EXPANDED_BYTES = 1 << 30,
    MAX_ZSTD_WINDOW_LOG = 23,
    MAX_GRAPH_BYTES = 64 << 20,
    MAX_LABELS = 100000,
    MAX_CANNED_IMAGES = 64,
    MAX_CANNED_PICTURES = 64,
    MAX_CANNED_BYTES = 64 << 20,
    MAX_IMAGE_SIDE = 4096,
    MAX_SCALED_SIDE = 65535
};
static const int64_t MAX_INT = 9007199254740991;

static void refuse(const char *why, const char *name, size_t length) {
    fprintf(stderr, "refused: %s%s%.*s\n", why, length ? ": " : "", (int)length, name ? name : "");
    exit(1);
}

static void refuse_plain(const char *why) { refuse(why, NULL, 0); }

static void *take(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) refuse_plain("out of memory");
    return memory;
}

/* ---- SHA-256 (FIPS 180-4) ---- */

typedef struct {
    uint32_t h[8];
    uint8_t block[64];
    uint64_t bytes;
} Sha;

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha_block(Sha *s) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)s->block[4 * i] << 24 | (uint32_t)s->block[4 * i + 1] << 16 |
               (uint32_t)s->block[4 * i + 2] << 8 | s->block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[0], e = v[4];
        uint32_t one = v[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + K[i] + w[i];
        uint32_t two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

static void sha_begin(Sha *s) {
    static const uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, h, sizeof h);
    s->bytes = 0;
}

static void sha_add(Sha *s, const uint8_t *data, size_t length) {
    for (size_t i = 0; i < length; i++) {
        s->block[s->bytes++ % 64] = data[i];
        if (s->bytes % 64 == 0) sha_block(s);
    }
}

static void sha_end(Sha *s, char hex[65]) {
    uint64_t bits = s->bytes * 8;
    uint8_t tail = 0x80, size[8];
    sha_add(s, &tail, 1);
    for (tail = 0; s->bytes % 64 != 56;) sha_add(s, &tail, 1);
    for (int i = 0; i < 8; i++) size[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha_add(s, size, 8);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08lx", (unsigned long)s->h[i]);
}

static void sha_of(const uint8_t *data, size_t length, char hex[65]) {
    Sha s;
    sha_begin(&s);
    sha_add(&s, data, length);
    sha_end(&s, hex);
}

/* ---- JSON as the document writes it: no white space, one spelling for each value ---- */

typedef enum { OBJECT, LIST, TEXT, INTEGER } Kind;
typedef struct Node Node;
struct Node {
    Kind kind;
    const char *key, *text; /* as spelled, without the quotes; equal values are spelled equally */
    size_t key_length, length;
    int64_t integer;
    size_t children;
    Node *first, *next;
};
typedef struct {
    const char *at, *end;
    int depth, deepest, sorted;
} Parser;

static int is_digit(char c) { return c >= '0' && c <= '9'; }

/* One character of a string as spelled: its UTF-8 bytes into `out`, their number as answer. */
static int one_character(const char **at, const char *end, char out[4]) {
    static const char plain[] = "\"\\bfnrt", meant[] = "\"\\\b\f\n\r\t";
    const unsigned char *p = (const unsigned char *)*at;
    size_t left = (size_t)(end - *at);
    if (*p == '\\') {
        const char *found = left > 1 && p[1] ? strchr(plain, p[1]) : NULL;
        if (found) {
            out[0] = meant[found - plain];
            *at += 2;
            return 1;
        }
        if (left < 6 || memcmp(p, "\\u00", 4)) refuse_plain("an escape that is not canonical");
        int high = p[4] - '0', low = is_digit((char)p[5])         ? p[5] - '0'
                                     : p[5] >= 'a' && p[5] <= 'f' ? p[5] - 'a' + 10
                                                                  : -1;
        int code = high * 16 + low;
        if (high < 0 || high > 1 || low < 0 || (code && strchr("\b\f\n\r\t", code)))
            refuse_plain("an escape that is not canonical");
        out[0] = (char)code;
        *at += 6;
        return 1;
    }
    if (*p < 0x20) refuse_plain("a control character in a string");
    int n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
    if (!n || (size_t)n > left) refuse_plain("not UTF-8");
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) refuse_plain("not UTF-8");
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
        (*p == 0xf4 && p[1] > 0x8f))
        refuse_plain("not UTF-8");
    memcpy(out, p, (size_t)n);
    *at += n;
    return n;
}

static void string(Parser *p, const char **begin, size_t *length) {
    char out[4];
    if (p->at >= p->end || *p->at != '"') refuse_plain("JSON: a string is missing");
    *begin = ++p->at;
    while (p->at < p->end && *p->at != '"') one_character(&p->at, p->end, out);
    if (p->at >= p->end) refuse_plain("JSON: a string does not end");
    *length = (size_t)(p->at++ - *begin);
}

/* The order of code points, which is that of the UTF-8 bytes. */
static int compare(const char *a, size_t a_length, const char *b, size_t b_length) {
    const char *a_end = a + a_length, *b_end = b + b_length;
    char x[4], y[4];
    while (a < a_end && b < b_end) {
        int m = one_character(&a, a_end, x), n = one_character(&b, b_end, y);
        int differs = memcmp(x, y, (size_t)(m < n ? m : n));
        if (differs) return differs;
    }
    return (a < a_end) - (b < b_end);
}

static int by_key(const void *a, const void *b) {
    const Node *x = *(Node *const *)a, *y = *(Node *const *)b;
    return compare(x->key, x->key_length, y->key, y->key_length);
}

static void no_key_twice(const Node *object) {
    Node **all = take(object->children * sizeof *all);
    size_t i = 0;
    for (Node *child = object->first; child; child = child->next) all[i++] = child;
    qsort(all, i, sizeof *all, by_key);
    for (size_t k = 1; k < i; k++)
        if (!by_key(&all[k - 1], &all[k])) refuse("a key twice", all[k]->key, all[k]->key_length);
    free(all);
}

static Node *value(Parser *p) {
    Node *node = take(sizeof *node);
    memset(node, 0, sizeof *node);
    if (p->at >= p->end) refuse_plain("JSON ends early");
    char c = *p->at;
    if (c == '{' || c == '[') {
        char close = c == '{' ? '}' : ']';
        Node **last = &node->first, *before = NULL;
        node->kind = c == '{' ? OBJECT : LIST;
        if (p->depth++ > p->deepest) refuse_plain("JSON nests too deep");
        p->at++;
        while (p->at < p->end && *p->at != close) {
            const char *key = NULL;
            size_t length = 0;
            if (node->children++ && *p->at++ != ',') refuse_plain("JSON: a comma is missing");
            if (node->kind == OBJECT) {
                string(p, &key, &length);
                if (p->at >= p->end || *p->at++ != ':') refuse_plain("JSON: a colon is missing");
                if (p->sorted && before && compare(before->key, before->key_length, key, length) >= 0)
                    refuse("JSON: keys are not sorted", key, length);
            }
            before = *last = value(p);
            before->key = key;
            before->key_length = length;
            last = &before->next;
        }
        if (p->at++ >= p->end) refuse_plain("JSON ends early");
        p->depth--;
        if (node->kind == OBJECT) no_key_twice(node);
    } else if (c == '"') {
        node->kind = TEXT;
        string(p, &node->text, &node->length);
    } else {
        int negative = c == '-';
        const char *digits = p->at += negative;
        while (p->at < p->end && is_digit(*p->at) && p->at - digits < 17)
            node->integer = node->integer * 10 + (*p->at++ - '0');
        if (p->at == digits || (*digits == '0' && (p->at - digits > 1 || negative)))
            refuse_plain("JSON: not a canonical integer");
        if (node->integer > MAX_INT || (p->at < p->end && is_digit(*p->at))) refuse_plain("an integer over 2^53 - 1");
        node->kind = INTEGER;
        if (negative) node->integer = -node->integer;
    }
    return node;
}

static Node *parse(const char *text, size_t length, int deepest, int sorted) {
    Parser p = {text, text + length, 0, deepest, sorted};
    Node *node = value(&p);
    if (p.at != p.end) refuse_plain("JSON has something after its end");
    if (node->kind != OBJECT) refuse_plain("JSON is not an object");
    return node;
}

static int is(const char *text, size_t length, const char *wanted) {
    return length == strlen(wanted) && !memcmp(text, wanted, length);
}

/* A field of an object; every field is taken once, and `done` refuses what is left. */
static Node *field(Node *object, const char *name, Kind kind) {
    for (Node *child = object->first; child; child = child->next)
        if (child->key && is(child->key, child->key_length, name)) {
            if (child->kind != kind) refuse("a field of another type", name, strlen(name));
            child->key = NULL;
            object->children--;
            return child;
        }
    refuse("a field is missing", name, strlen(name));
    return NULL;
}

static int has(const Node *object, const char *name) {
    for (const Node *child = object->first; child; child = child->next)
        if (child->key && is(child->key, child->key_length, name)) return 1;
    return 0;
}

static void done(const Node *object) {
    for (const Node *child = object->first; child; child = child->next)
        if (child->key) refuse("an unknown field", child->key, child->key_length);
}

static int64_t whole(int64_t v, int64_t least, int64_t most, const char *name) {
    if (v < least || v > most) refuse("an integer outside its range", name, strlen(name));
    return v;
}

static int64_t integer(Node *object, const char *name, int64_t least, int64_t most) {
    return whole(field(object, name, INTEGER)->integer, least, most, name);
}

static size_t bytes_of(const Node *node) {
    const char *at = node->text, *end = at + node->length;
    size_t bytes = 0;
    char out[4];
    while (at < end) bytes += (size_t)one_character(&at, end, out);
    return bytes;
}

static Node *text(Node *object, const char *name) {
    Node *node = field(object, name, TEXT);
    if (!node->length || bytes_of(node) > MAX_NAME_BYTES)
        refuse("a text that is empty or too long", name, strlen(name));
    return node;
}

static Node *hexadecimal(Node *object, const char *name, size_t digits) {
    Node *node = text(object, name);
    for (size_t i = 0; i < node->length; i++)
        if (!is_digit(node->text[i]) && (node->text[i] < 'a' || node->text[i] > 'f'))
            refuse("not lower-case hexadecimal", name, strlen(name));
    if (node->length != digits) refuse("another number of hexadecimal digits", name, strlen(name));
    return node;
}

static uint64_t word(Node *object, const char *name) {
    Node *node = hexadecimal(object, name, 16);
    uint64_t found = 0;
    for (int i = 0; i < 16; i++)
        found = found << 4 | (uint64_t)(is_digit(node->text[i]) ? node->text[i] - '0' : node->text[i] - 'a' + 10);
    return found;
}

/* ---- payloads ---- */

typedef struct {
    const uint8_t *data;
    size_t begin, bytes;
    int there;
} Payload;
enum { F32, BF16, F16, BYTES };
static const char *NAMES[] = {"f32", "bf16", "f16", "bytes"}, *DTYPES[] = {"F32", "BF16", "F16", "U8"};
static const size_t ITEM[] = {4, 2, 2, 1};
static Payload payloads[4];

static void entry(Node *node) {
    int kind = 0;
    while (kind < 4 && !is(node->key, node->key_length, NAMES[kind])) kind++;
    if (kind == 4) refuse("an unknown payload", node->key, node->key_length);
    if (node->kind != OBJECT) refuse("a payload that is not an object", node->key, node->key_length);
    Payload *p = &payloads[kind];
    const char *name = NAMES[kind];
    Node *dtype = field(node, "dtype", TEXT), *shape = field(node, "shape", LIST),
         *offsets = field(node, "data_offsets", LIST);
    done(node);
    if (!is(dtype->text, dtype->length, DTYPES[kind]) || shape->children != 1 || offsets->children != 2)
        refuse("a payload's dtype, shape or offsets", name, strlen(name));
    Node *size = shape->first, *begin = offsets->first, *end = begin->next;
    if (size->kind != INTEGER || begin->kind != INTEGER || end->kind != INTEGER)
        refuse("a size or offset that is not an integer", name, strlen(name));
    whole(size->integer, 0, MAX_FILE_BYTES, "shape");
    whole(begin->integer, 0, MAX_FILE_BYTES, "data_offsets");
    whole(end->integer, 0, MAX_FILE_BYTES, "data_offsets");
    if (end->integer - begin->integer != size->integer * (int64_t)ITEM[kind] ||
        begin->integer % (int64_t)ITEM[kind])
        refuse("a payload's bytes do not fit its shape", name, strlen(name));
    p->begin = (size_t)begin->integer;
    p->bytes = (size_t)(end->integer - begin->integer);
    p->there = 1;
}

static void check_digest(const uint8_t *data, size_t bytes, const char *wanted, const char *what) {
    char hex[65];
    sha_of(data, bytes, hex);
    if (memcmp(hex, wanted, 64)) refuse("a digest does not match", what, strlen(what));
}

/* ---- inflate (RFC 1950, 1951), into exactly `size` bytes ---- */

typedef struct {
    const uint8_t *in;
    size_t left, size, done;
    uint8_t *out;
    uint32_t bits;
    int have, partly, full; /* partly: the first `size` bytes will do; full: they are there */
} Inflate;
typedef struct {
    uint16_t count[16], symbol[288];
} Huffman;

static void bad_stream(void) { refuse_plain("a zlib stream is damaged, or not of the size that was stated"); }

static int bits(Inflate *z, int need) {
    while (z->have < need) {
        if (!z->left--) bad_stream();
        z->bits |= (uint32_t)*z->in++ << z->have;
        z->have += 8;
    }
    int found = (int)(z->bits & ((1u << need) - 1));
    z->bits >>= need;
    z->have -= need;
    return found;
}

static void put(Inflate *z, uint8_t byte) {
    if (z->done == z->size) {
        if (!z->partly) bad_stream();
        z->full = 1;
        return;
    }
    z->out[z->done++] = byte;
    if (z->partly && z->done == z->size) z->full = 1;
}

/* Over-subscribed lengths are refused; incomplete ones only where RFC 1951 allows them (one distance code). */
static void huffman(Huffman *h, const uint8_t *lengths, int n, int lone) {
    uint16_t start[16];
    int left = 1;
    memset(h->count, 0, sizeof h->count);
    for (int i = 0; i < n; i++) h->count[lengths[i]]++;
    for (int length = 1; length < 16; length++)
        if ((left = 2 * left - h->count[length]) < 0) bad_stream();
    if (left && h->count[0] != n && !(lone && n - h->count[0] == 1 && h->count[1] == 1)) bad_stream();
    start[1] = 0;
    for (int length = 1; length < 15; length++) start[length + 1] = (uint16_t)(start[length] + h->count[length]);
    for (int i = 0; i < n; i++)
        if (lengths[i]) h->symbol[start[lengths[i]]++] = (uint16_t)i;
}

static int symbol(Inflate *z, const Huffman *h) {
    int code = 0, first = 0, index = 0;
    for (int length = 1; length < 16; length++) {
        code |= bits(z, 1);
        int count = h->count[length];
        if (code - count < first) return h->symbol[index + code - first];
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    bad_stream();
    return -1;
}

static void coded_block(Inflate *z, const Huffman *literals, const Huffman *distances) {
    static const uint16_t base[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                    31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    static const uint8_t extra[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                    2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    static const uint16_t far[] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                   33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                   1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    for (int code; !z->full && (code = symbol(z, literals)) != 256;) {
        if (code < 256) {
            put(z, (uint8_t)code);
            continue;
        }
        if ((code -= 257) >= 29) bad_stream();
        int length = base[code] + bits(z, extra[code]), place = symbol(z, distances);
        if (place >= 30) bad_stream();
        size_t distance = (size_t)far[place] + (size_t)bits(z, place < 4 ? 0 : place / 2 - 1);
        if (distance > z->done) bad_stream();
        while (length--) put(z, z->out[z->done - distance]);
    }
}

static void coded_tables(Inflate *z, Huffman *literals, Huffman *distances) {
    static const uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[320] = {0};
    int n = bits(z, 5) + 257, m = bits(z, 5) + 1, codes = bits(z, 4) + 4, i;
    if (n > 286 || m > 30) bad_stream();
    for (i = 0; i < codes; i++) lengths[order[i]] = (uint8_t)bits(z, 3);
    huffman(literals, lengths, 19, 0);
    for (i = 0; i < n + m;) {
        int code = symbol(z, literals), again = 1, length = code;
        if (code >= 16) {
            if (code == 16 && !i) bad_stream();
            length = code == 16 ? lengths[i - 1] : 0;
            again = code == 16 ? 3 + bits(z, 2) : code == 17 ? 3 + bits(z, 3) : 11 + bits(z, 7);
        }
        if (i + again > n + m) bad_stream();
        while (again--) lengths[i++] = (uint8_t)length;
    }
    if (!lengths[256]) bad_stream();
    huffman(distances, lengths + n, m, 1);
    huffman(literals, lengths, n, 1);
}

static uint32_t adler(const uint8_t *data, size_t length) {
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < length; i++) a = (a + data[i]) % 65521, b = (b + a) % 65521;
    return b << 16 | a;
}

static uint32_t big_endian(const uint8_t *in) {
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

/* `known` bytes of a dictionary precede `out`; a stream without one has none. */
static void inflate_into(uint8_t *out, size_t size, const uint8_t *in, size_t length, size_t known, int partly) {
    static Huffman literals, distances;
    if (length < 6 || (in[0] & 15) != 8 || in[0] >> 4 > 7 || !(in[1] & 0x20) != !known || (in[0] << 8 | in[1]) % 31)
        bad_stream();
    size_t head = known ? 6 : 2;
    if (known && (length < 10 || big_endian(in + 2) != adler(out - known, known))) bad_stream();
    Inflate z = {in + head, length - head, size + known, known, out - known, 0, 0, partly, 0};
    for (int last = 0; !last && !z.full;) {
        last = bits(&z, 1);
        int kind = bits(&z, 2);
        if (kind == 3) bad_stream();
        if (kind == 0) {
            z.bits = 0, z.have = 0;
            if (z.left < 4) bad_stream();
            size_t n = (size_t)z.in[0] | (size_t)z.in[1] << 8;
            if ((n ^ 0xffff) != ((size_t)z.in[2] | (size_t)z.in[3] << 8)) bad_stream();
            for (z.in += 4, z.left -= 4; n-- && !z.full; z.left--) {
                if (!z.left) bad_stream();
                put(&z, *z.in++);
            }
            continue;
        }
        if (kind == 1) {
            uint8_t lengths[288], five[30];
            for (int i = 0; i < 288; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
            memset(five, 5, sizeof five);
            huffman(&literals, lengths, 288, 0);
            memset(distances.count, 0, sizeof distances.count);
            distances.count[5] = 30;
            for (int i = 0; i < 30; i++) distances.symbol[i] = (uint16_t)i;
        } else
            coded_tables(&z, &literals, &distances);
        coded_block(&z, &literals, &distances);
    }
    if (z.done != size + known) bad_stream();
    if (!partly && (z.left != 4 || big_endian(z.in) != adler(out, size))) bad_stream();
}

/* Manifest and graph, or the first `size` bytes of them. */
static uint8_t *expand_head(const uint8_t *in, size_t length, size_t size, int partly) {
    uint8_t *memory = take(sizeof DICTIONARY + size);
    memcpy(memory, DICTIONARY, sizeof DICTIONARY);
    inflate_into(memory + sizeof DICTIONARY, size, in, length, sizeof DICTIONARY, partly);
    return memory + sizeof DICTIONARY;
}

static void zstd_into(uint8_t *out, size_t size, const uint8_t *in, size_t length) {
#ifdef WITH_ZSTD
    if (length < 6 || in[0] != 0x28 || in[1] != 0xb5 || in[2] != 0x2f || in[3] != 0xfd || in[4] & 3)
        refuse_plain("not a zstd frame without a dictionary");
    if (!(in[4] & 0x20)) { /* a window descriptor */
        unsigned exponent = 10u + (in[5] >> 3);
        if (exponent > MAX_ZSTD_WINDOW_LOG || (exponent == MAX_ZSTD_WINDOW_LOG && in[5] & 7))
            refuse_plain("a zstd window over the limit");
    }
    if (ZSTD_getFrameContentSize(in, length) != size) refuse_plain("a zstd frame states another size");
    if (ZSTD_findFrameCompressedSize(in, length) != length)
        refuse_plain("a zstd frame that does not end with its payload");
    if (ZSTD_decompress(out, size, in, length) != size) refuse_plain("a zstd frame is damaged");
#else
    (void)out, (void)size, (void)in, (void)length;
    refuse_plain("this reader was built without zstd");
#endif
}

/* ---- the entropy coder ---- */

enum { TOKENS = 25, CONTEXTS = 8, ONE = 1 << 14, DIRECT = 12 };
typedef struct {
    uint64_t counts[CONTEXTS][TOKENS], fresh[CONTEXTS][TOKENS];
    uint32_t frequency[CONTEXTS][TOKENS];
    uint64_t values, due;
    int top;
} Model;
typedef struct {
    const uint8_t *words, *bits;
    size_t words_left, bits_left, lanes; /* bits_left: of the bits behind `bit` */
    size_t bit;
    uint32_t *states;
    Model models[2];
} Decoder;

static void bad_entropy(void) { refuse_plain("the stream of integers is damaged, or not of the size that was stated"); }

static void estimate(Model *m, uint64_t lanes) {
    uint64_t step = m->values >> 3;
    m->due = m->values + (step < 1 << 17 ? step : 1 << 17) + lanes;
    for (int c = 0; c < CONTEXTS; c++) {
        uint64_t sum = 0;
        uint32_t all = 0;
        int most = 0;
        for (int t = 0; t < TOKENS; t++) m->counts[c][t] += 32 * m->fresh[c][t], m->fresh[c][t] = 0;
        for (int t = 0; t <= m->top; t++) {
            sum += m->counts[c][t];
            if (m->counts[c][t] > m->counts[c][most]) most = t;
        }
        for (int t = 0; t <= m->top; t++)
            all += m->frequency[c][t] = (uint32_t)(m->counts[c][t] * (uint64_t)(ONE - m->top - 1) / sum + 1);
        m->frequency[c][most] += ONE - all;
    }
}

static void begin_model(Model *m, int top, int forgotten) {
    for (int c = 0; c < CONTEXTS; c++)
        for (int t = 0; t < TOKENS; t++) {
            m->counts[c][t] = m->counts[c][t] >> forgotten ? m->counts[c][t] >> forgotten : 1;
            m->fresh[c][t] = 0;
        }
    m->values = m->due = 0, m->top = top;
}

static int next_token(Decoder *d, Model *m, uint32_t *state, int context) {
    uint32_t slot = *state & (ONE - 1), start = 0;
    int token = 0;
    while (slot >= start + m->frequency[context][token]) start += m->frequency[context][token++];
    *state = m->frequency[context][token] * (*state >> 14) + slot - start;
    if (*state < 1 << 16) {
        if (!d->words_left--) bad_entropy();
        *state = *state << 16 | (uint32_t)d->words[0] | (uint32_t)d->words[1] << 8;
        d->words += 2;
    }
    m->fresh[context][token]++;
    return token;
}

static void tokens_of(Decoder *d, uint8_t *tokens, size_t size, size_t row, Model *m) {
    static const uint32_t levels[CONTEXTS - 1] = {24, 48, 80, 128, 192, 320, 640};
    if (row > 1 << 20) row = 1 << 20;
    row *= row < d->lanes ? d->lanes / row : 1;
    size_t steps = (row + d->lanes - 1) / d->lanes;
    uint32_t *faded = take(row * sizeof *faded), *last = take(d->lanes * 2 * sizeof *last);
    memset(faded, 0, row * sizeof *faded);
    for (size_t begin = 0; begin < size; begin += row) {
        size_t left = size - begin < row ? size - begin : row;
        memset(last, 0, d->lanes * 2 * sizeof *last);
        for (size_t s = 0; s < steps && s < left; s++) {
            if (m->values >= m->due) estimate(m, d->lanes);
            for (size_t lane = 0, column = s; column < left; lane++, column += steps) {
                uint32_t *near = last + 2 * lane, expected = (faded[column] + 2 * near[0] + near[1]) >> 1;
                int context = 0;
                while (context < CONTEXTS - 1 && expected >= levels[context]) context++;
                int token = next_token(d, m, &d->states[lane], context);
                tokens[begin + column] = (uint8_t)token;
                near[1] = near[0], near[0] = 32 * (uint32_t)token;
                faded[column] += near[0] - (faded[column] >> 3);
                m->values++;
            }
        }
    }
    free(faded), free(last);
}

static int next_bit(Decoder *d) {
    if (!d->bits_left--) bad_entropy();
    int found = d->bits[d->bit / 8] >> (7 - d->bit % 8) & 1;
    d->bit++;
    return found;
}

static void integers_of(Decoder *d, int16_t *q, size_t size, size_t row, int vector, int top, int limit) {
    uint8_t *tokens = take(size), *negative = take(size);
    memset(tokens, 0, size);
    if (top) {
        begin_model(&d->models[vector], top, vector ? 1 : 3);
        tokens_of(d, tokens, size, row, &d->models[vector]);
    }
    for (size_t i = 0; i < size; i++) negative[i] = (uint8_t)(tokens[i] && next_bit(d));
    for (size_t i = 0; i < size; i++) {
        int32_t v = tokens[i];
        if (v >= DIRECT) {
            int bits = v - DIRECT + 2;
            for (v = 1; bits--;) v = 2 * v + next_bit(d);
            v += 8;
        }
        if (v > limit) refuse_plain("an integer over its limit");
        q[i] = (int16_t)(negative[i] ? -v : v);
    }
    free(tokens), free(negative);
}

static void open_decoder(Decoder *d, const uint8_t *in, size_t length, size_t tensors) {
    memset(d, 0, sizeof *d);
    if (length < 5 || in[0] < 2 || in[0] > 12) bad_entropy();
    d->lanes = (size_t)1 << in[0];
    d->words_left = (size_t)in[1] | (size_t)in[2] << 8 | (size_t)in[3] << 16 | (size_t)in[4] << 24;
    size_t head = 5 + tensors + 4 * d->lanes;
    if (length < head || (length - head) / 2 < d->words_left) bad_entropy();
    d->states = take(d->lanes * sizeof *d->states);
    for (size_t i = 0; i < d->lanes; i++) {
        const uint8_t *b = in + 5 + tensors + 4 * i;
        d->states[i] = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        if (d->states[i] < 1 << 16) bad_entropy();
    }
    d->words = in + head;
    d->bits = d->words + 2 * d->words_left;
    d->bits_left = 8 * (length - head - 2 * d->words_left);
    for (int i = 0; i < 2; i++)
        for (int c = 0; c < CONTEXTS; c++)
            for (int t = 0; t < TOKENS; t++) d->models[i].counts[c][t] = i ? 64 : (uint64_t)1024 >> (t < 10 ? t : 10);
}

static void close_decoder(Decoder *d) {
    int rest = 0;
    if (d->words_left || d->bits_left > 7) bad_entropy();
    while (d->bits_left) rest |= next_bit(d);
    for (size_t i = 0; i < d->lanes; i++) rest |= d->states[i] != 1 << 16;
    if (rest) bad_entropy();
    free(d->states);
}

/* ---- the generator ---- */

static void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t a = (uint64_t)0xCD9E8D57u * c[2], b = (uint64_t)0xD2511F53u * c[0];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(a >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)a;
        c[2] = (uint32_t)(b >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)b;
    }
}

static uint32_t stream_word(uint64_t seed, uint32_t tensor, uint32_t stream, uint64_t i) {
    uint32_t c[4] = {(uint32_t)(i / 4), tensor, stream, 1};
    philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
    return c[i % 4];
}

static void draw(uint64_t seed, uint32_t tensor, uint64_t begin, size_t count, uint8_t *out) {
    uint32_t c[4] = {0, 0, 0, 0};
    for (size_t k = 0; k < count; k++) {
        uint64_t at = begin + k;
        if (!k || at % 16 == 0) {
            c[0] = (uint32_t)(at / 16), c[1] = tensor, c[2] = 0, c[3] = 1;
            philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
        }
        out[k] = (uint8_t)(c[at / 4 % 4] >> 8 * (at % 4));
    }
}

/* ---- tensors ---- */

static void add_float(Sha *s, float v) {
    uint32_t word;
    uint8_t out[4];
    memcpy(&word, &v, 4);
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(word >> 8 * i);
    sha_add(s, out, 4);
}

static float of_bits(uint32_t word) {
    float v;
    memcpy(&v, &word, 4);
    return v;
}

static float half(unsigned h) {
    int exponent = h >> 10 & 31, fraction = h & 1023;
    float v = exponent ? ldexpf((float)(1024 + fraction), exponent - 25) : ldexpf((float)fraction, -24);
    return h & 0x8000 ? -v : v;
}

/* Where expanded values go: into the digest of all, and, perhaps scaled, into their own; or into memory. */
typedef struct {
    Sha own, *all;
    const float *scale; /* one for each run of `row` values, or NULL */
    size_t row, done;
    float *into;
} Sink;

static void give(Sink *s, float v) {
    if (s->into) s->into[s->done] = v;
    if (s->all) {
        volatile float product = s->scale ? v * s->scale[s->done / s->row] : v; /* one more rounding, to 32 bits */
        add_float(s->all, v);
        add_float(&s->own, product);
    }
    s->done++;
}

static void raw(int kind, const uint8_t *data, size_t elements, Sink *s) {
    for (size_t i = 0; i < elements; i++) {
        const uint8_t *b = data + i * ITEM[kind];
        uint32_t word = kind == F32
                            ? (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24
                            : (uint32_t)b[0] << 16 | (uint32_t)b[1] << 24;
        int finite = kind == F16 ? (b[1] & 0x7c) != 0x7c : (word & 0x7f800000u) != 0x7f800000u;
        if (!finite) refuse_plain("values that are not finite");
        give(s, kind == F16 ? half(b[0] | (unsigned)b[1] << 8) : of_bits(word));
    }
}

typedef struct Tensor Tensor;
struct Tensor {
    Node *name, *scale_name;
    Tensor *scale;
    size_t elements;
    int rank, kind, raw, width, is_scale, is_norms, scales;
    int64_t shape[MAX_RANK], lo, span, frac, repeat;
    uint32_t tensor, stream;
    uint64_t seed;
    float step;
    const uint8_t *data; /* of a raw tensor */
    const int16_t *q;    /* of a tensor on a grid */
};
enum { RAW, GRID, SEEDED };

static Tensor read_tensor(Node *node) {
    Tensor t;
    memset(&t, 0, sizeof t);
    if (node->kind != OBJECT) refuse_plain("a tensor that is not an object");
    t.name = text(node, "name");
    Node *coding = text(node, "coding"), *shape = field(node, "shape", LIST);
    const char *c = coding->text;
    if (has(node, "scale")) t.scale_name = text(node, "scale");
    if (has(node, "role")) {
        Node *role = field(node, "role", TEXT);
        t.is_scale = is(role->text, role->length, "scale"), t.is_norms = is(role->text, role->length, "norms");
        if (!t.is_scale && !t.is_norms) refuse("an unknown role", role->text, role->length);
    }
    if (shape->children > MAX_RANK) refuse("too many axes", t.name->text, t.name->length);
    t.elements = 1;
    for (Node *size = shape->first; size; size = size->next) {
        if (size->kind != INTEGER) refuse("a size that is not an integer", t.name->text, t.name->length);
        t.shape[t.rank++] = whole(size->integer, 1, MAX_TENSOR_BYTES / 4, "shape");
        if (t.elements > (size_t)MAX_TENSOR_BYTES / 4 / (size_t)size->integer)
            refuse("a tensor over the limit", t.name->text, t.name->length);
        t.elements *= (size_t)size->integer;
    }
    if (is(c, coding->length, "seedcnn-rng/1")) {
        t.kind = SEEDED;
        t.seed = word(node, "seed");
        t.tensor = (uint32_t)integer(node, "tensor_id", 0, 0xffffffffLL);
        t.stream = (uint32_t)integer(node, "stream", 0, 0xffffffffLL);
        int64_t count = integer(node, "count", 1, (int64_t)t.elements);
        t.repeat = integer(node, "repeat", 1, (int64_t)t.elements);
        if (count * t.repeat < (int64_t)t.elements || count * t.repeat >= (int64_t)t.elements + t.repeat)
            refuse("draws that do not fill the shape", t.name->text, t.name->length);
        t.lo = integer(node, "lo_q", -(1 << 24) + 1, (1 << 24) - 1);
        t.span = integer(node, "span_q", 0, (1 << 25) - 1);
        t.frac = integer(node, "frac_bits", 0, 60);
        whole(t.lo + t.span, -(1 << 24) + 1, (1 << 24) - 1, "span_q");
    } else {
        static const char *raws[] = {"raw-f32", "raw-bf16", "raw-f16"};
        while (t.raw < 3 && !is(c, coding->length, raws[t.raw])) t.raw++;
        if (t.raw == 3) {
            t.kind = GRID;
            t.width = is(c, coding->length, "grid-i8") ? 1 : is(c, coding->length, "grid-i16") ? 2 : 0;
            if (!t.width) refuse("an unknown coding", c, coding->length);
            t.step = ldexpf((float)integer(node, "step_mantissa", 1, (1 << 24) - 1),
                            (int)-integer(node, "step_exponent", 0, 126));
        }
    }
    done(node);
    return t;
}

static void pair_scales(Tensor *tensors, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Tensor *t = &tensors[i];
        if (!t->scale_name) continue;
        for (size_t k = 0; k < count; k++)
            if (tensors[k].is_scale && tensors[k].name->length == t->scale_name->length &&
                !memcmp(tensors[k].name->text, t->scale_name->text, t->scale_name->length))
                t->scale = &tensors[k];
        if (!t->scale || t->is_scale || t->is_norms || t->scale->scales++ || t->kind != GRID || t->step < ldexpf(1, -80) ||
            !t->rank || t->scale->rank != 1 || t->scale->shape[0] != t->shape[0])
            refuse("a tensor and its scale do not belong together", t->name->text, t->name->length);
    }
    for (size_t i = 0; i < count; i++)
        if (tensors[i].is_scale && !tensors[i].scales)
            refuse("the scale of no tensor", tensors[i].name->text, tensors[i].name->length);
}

/* Check the table of norms, which only a device that gives them statistics of its own needs. */
static void read_norms(Node *norms, const Tensor *tensors, size_t count) {
    int64_t total = 0;
    size_t found = 0;
    if (norms && (norms->children < 1 || norms->children > MAX_NORMS)) refuse_plain("too few or too many norms");
    for (Node *site = norms ? norms->first : NULL; site; site = site->next) {
        if (site->kind != OBJECT) refuse_plain("a norm that is not an object");
        Node *value = text(site, "value"), *places = field(site, "places", LIST);
        int64_t channels = integer(site, "channels", 1, MAX_TENSOR_BYTES / 4);
        if (!places->children || places->children % 3 || places->children > MAX_PLACES)
            refuse("places that are no triples", value->text, value->length);
        for (Node *place = places->first; place; place = place->next->next->next) {
            Node *other = place->next, *first = other->next;
            if (place->kind != INTEGER || other->kind != INTEGER || first->kind != INTEGER)
                refuse("a place that is not an integer", value->text, value->length);
            const Tensor *scale = &tensors[whole(place->integer, 0, (int64_t)count - 1, "places")];
            const Tensor *bias = &tensors[whole(other->integer, 0, (int64_t)count - 1, "places")];
            int64_t last = whole(first->integer, 0, MAX_TENSOR_BYTES / 4, "places") + (int64_t)bias->elements;
            int fits = scale->rank && last <= channels && scale != bias;
            fits = fits && !(scale->shape[0] % (int64_t)bias->elements);
            if (!fits || scale->is_scale || scale->is_norms || scale->kind == SEEDED || bias->is_scale ||
                bias->is_norms || bias->kind == SEEDED)
                refuse("a norm and its tensors do not belong together", value->text, value->length);
        }
        for (const Node *before = norms->first; before != site; before = before->next)
            for (const Node *child = before->first; child; child = child->next)
                if (child->kind == TEXT && child->length == value->length &&
                    !memcmp(child->text, value->text, value->length))
                    refuse("two norms of one value", value->text, value->length);
        done(site);
        total += channels;
    }
    for (size_t i = 0; i < count; i++)
        if (tensors[i].is_norms) {
            found++;
            if (tensors[i].rank != 2 || tensors[i].shape[0] != 2 || tensors[i].shape[1] != total ||
                tensors[i].kind == SEEDED)
                refuse("norms of another shape", tensors[i].name->text, tensors[i].name->length);
        }
    if (found != (norms != NULL)) refuse_plain("norms without their table, or a table without its norms");
}

static void expand(const Tensor *t, Sink *s) {
    if (t->kind == RAW) raw(t->raw, t->data, t->elements, s);
    if (t->kind == GRID)
        for (size_t i = 0; i < t->elements; i++) {
            volatile float product = (float)t->q[i] * t->step; /* one rounding, to 32 bits */
            give(s, product);
        }
    if (t->kind == SEEDED)
        for (size_t i = 0; i < t->elements; i++) {
            uint64_t x = stream_word(t->seed, t->tensor, t->stream, i / (uint64_t)t->repeat);
            give(s, ldexpf((float)(t->lo + (int64_t)((uint64_t)t->span * x >> 32)), (int)-t->frac));
        }
}

static float *scales_of(const Tensor *t) {
    Sink s = {0};
    s.into = take(t->elements * sizeof *s.into);
    expand(t, &s);
    for (size_t i = 0; i < t->elements; i++) {
        float size = fabsf(s.into[i]);
        if (size != 0 && (size < ldexpf(1, -40) || size > ldexpf(1, 40)))
            refuse("a scale outside its range", t->name->text, t->name->length);
    }
    return s.into;
}

/* Add a tensor's values to the digest of all, and print what the graph gets. */
static void use_tensor(const Tensor *t, Sha *all) {
    Sink s = {0};
    char hex[65];
    float *scale = t->scale ? scales_of(t->scale) : NULL;
    s.all = all, s.scale = scale, s.row = t->rank ? t->elements / (size_t)t->shape[0] : 1;
    sha_begin(&s.own);
    expand(t, &s);
    free(scale);
    sha_end(&s.own, hex);
    if (t->is_scale || t->is_norms) return;
    printf("tensor %.*s ", (int)t->name->length, t->name->text);
    for (int i = 0; i < t->rank; i++) printf("%s%lld", i ? "x" : "", (long long)t->shape[i]);
    printf(" %s\n", hex);
}

/* Where each tensor's values lie: floats one after another, and integers, which are decoded first. */
static int16_t *place_tensors(Tensor *tensors, size_t count, const uint8_t *in, size_t length, const Node *how) {
    size_t at[3] = {0, 0, 0}, bytes = 0, total = 0, grids = 0, done = 0;
    for (size_t i = 0; i < count; i++) {
        Tensor *t = &tensors[i];
        if (t->kind == RAW) {
            if (!payloads[t->raw].there || (payloads[t->raw].bytes - at[t->raw]) / ITEM[t->raw] < t->elements)
                refuse("a payload of floats ends before a tensor", t->name->text, t->name->length);
            t->data = payloads[t->raw].data + at[t->raw];
            at[t->raw] += t->elements * ITEM[t->raw];
        }
        if (t->kind == GRID) total += t->elements, bytes += t->elements * (size_t)t->width, grids++;
    }
    for (int i = 0; i < 3; i++)
        if (at[i] != payloads[i].bytes || (payloads[i].there && !at[i]))
            refuse("a payload of floats does not end with the tensors", NAMES[i], strlen(NAMES[i]));
    if (!grids) {
        if (length) refuse_plain("integers, but no tensor on a grid");
        return NULL;
    }
    int16_t *q = take(total * sizeof *q);
    int coded = is(how->text, how->length, "entropy");
    uint8_t *planes = NULL;
    static Decoder decoder;
    if (is(how->text, how->length, "xz")) refuse_plain("this reader leaves xz out");
    if (coded)
        open_decoder(&decoder, in, length, grids);
    else {
        planes = take(bytes);
        if (is(how->text, how->length, "zlib"))
            inflate_into(planes, bytes, in, length, 0, 0);
        else
            zstd_into(planes, bytes, in, length);
    }
    if (coded)
        for (size_t i = 0; i < grids; i++)
            if (in[5 + i] >= TOKENS) bad_entropy();
    const uint8_t *plane = planes;
    for (size_t i = 0, grid = 0; i < count; i++) {
        Tensor *t = &tensors[i];
        if (t->kind != GRID) continue;
        int limit = t->width == 1 ? 127 : 32767, long_axes = 0;
        int16_t *own = q + done;
        if (coded) {
            for (int k = 0; k < t->rank; k++) long_axes += t->shape[k] > 1;
            integers_of(&decoder, own, t->elements, t->rank ? t->elements / (size_t)t->shape[0] : 1, long_axes < 2,
                        in[5 + grid], limit);
        } else
            for (size_t k = 0; k < t->elements; k++) {
                int low = plane[k], high = t->width == 2 ? plane[t->elements + k] : 0;
                int n = low | high << 8, wrap = t->width == 2 ? 32768 : 128;
                if (n >= wrap) n -= 2 * wrap;
                if (n < -limit) refuse_plain("an integer over its limit");
                own[k] = (int16_t)n;
            }
        t->q = own;
        done += t->elements, plane = plane ? plane + t->elements * (size_t)t->width : NULL, grid++;
    }
    if (coded) close_decoder(&decoder);
    free(planes);
    return q;
}

/* ---- from a picture to the input: integers only ---- */

enum { CROP, SQUASH, PAD, NONE, RESIZES };
enum { BILINEAR, BICUBIC, BOX, NEAREST, FILTERS };
enum { BITS = 22, WEIGHT_BITS = 39 };
typedef struct {
    int64_t channels, height, width, short_side, background[3], fill[3];
    int resize, filter;
} Rule;
typedef struct {
    int64_t height, width, channels;
} Picture;

static int one_of(Node *object, const char *name, const char *const *choices, int n) {
    Node *node = field(object, name, TEXT);
    for (int i = 0; i < n; i++)
        if (is(node->text, node->length, choices[i])) return i;
    refuse("an unknown word", name, strlen(name));
    return -1;
}

static void numbers(Node *object, const char *name, int64_t least, int64_t most, int64_t count, int64_t *out) {
    Node *list = field(object, name, LIST);
    if ((int64_t)list->children != count) refuse("another number of integers", name, strlen(name));
    for (Node *v = list->first; v; v = v->next) {
        if (v->kind != INTEGER) refuse("not an integer", name, strlen(name));
        *out++ = whole(v->integer, least, most, name);
    }
}

static Rule read_rule(Node *node) {
    static const char *const resizes[] = {"crop", "squash", "pad", "none"};
    static const char *const filters[] = {"bilinear", "bicubic", "box", "nearest"};
    static const char *const orientations[] = {"exif", "stored"};
    int64_t unused[3];
    Rule r;
    memset(&r, 0, sizeof r);
    r.channels = integer(node, "channels", 1, 3);
    if (r.channels == 2) refuse_plain("an input of two channels");
    r.height = integer(node, "height", 1, MAX_IMAGE_SIDE), r.width = integer(node, "width", 1, MAX_IMAGE_SIDE);
    r.resize = one_of(node, "resize", resizes, RESIZES);
    one_of(node, "orientation", orientations, 2); /* for pictures from files, which this reader does not decode */
    numbers(node, "background", 0, 255, 3, r.background);
    if (r.resize != NONE) r.filter = one_of(node, "filter", filters, FILTERS);
    if (r.resize == CROP)
        r.short_side = integer(node, "short_side", r.height > r.width ? r.height : r.width, MAX_IMAGE_SIDE);
    if (r.resize == PAD) numbers(node, "fill", 0, 255, r.channels, r.fill);
    numbers(node, "mean_e8", -10000000000LL, 10000000000LL, r.channels, unused);
    numbers(node, "std_e8", 1, 10000000000LL, r.channels, unused);
    done(node);
    return r;
}

static size_t read_pictures(Node *list, Picture *out) {
    size_t count = 0;
    if (list->children > MAX_CANNED_PICTURES) refuse_plain("too many canned pictures");
    for (Node *node = list->first; node; node = node->next, count++) {
        int64_t *sizes[] = {&out[count].height, &out[count].width, &out[count].channels};
        if (node->kind != LIST || node->children != 3) refuse_plain("an item of canned.pictures that is not three sizes");
        Node *size = node->first;
        for (int i = 0; i < 3; i++, size = size->next) {
            if (size->kind != INTEGER) refuse_plain("a size that is not an integer");
            *sizes[i] = whole(size->integer, 1, i < 2 ? MAX_IMAGE_SIDE : 4, "pictures");
        }
    }
    return count;
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b && a < 0); } /* b > 0 */

static int64_t grey(int64_t red, int64_t green, int64_t blue) {
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
}

/* One pixel of 1 to 4 channels (the even ones end with alpha) to the rule's 1 or 3. */
static void convert(const uint8_t *in, int64_t channels, const Rule *r, uint8_t *out) {
    int colours = channels > 2 ? 3 : 1;
    for (int k = 0; k < r->channels; k++) {
        int64_t v = colours == 1 ? in[0] : r->channels == 1 ? grey(in[0], in[1], in[2]) : in[k];
        if (channels % 2 == 0) {
            const int64_t *b = r->background;
            int64_t under = r->channels == 1 ? grey(b[0], b[1], b[2]) : b[k], alpha = in[colours];
            v = (v * alpha + under * (255 - alpha) + 127) / 255;
        }
        out[k] = (uint8_t)v;
    }
}

/* Results `begin` to `begin + kept` of an axis: what each reads of the source, from where, and how much of it. */
typedef struct {
    int64_t kept, most;
    int32_t *start, *taps, *coefficients; /* coefficients: `most` for each result, in units of 2^-BITS */
} Axis;

static int64_t weight(int64_t n, int64_t d, int filter, int lost) {
    int64_t m = n < 0 ? -n : n, t = 2 * d, w;
    if (filter == BOX) return n > -d && n <= d;
    if (filter == BILINEAR) return m < t ? t - m : 0;
    if (m < t)
        w = 3 * m * m * m - 5 * m * m * t + 2 * t * t * t;
    else
        w = m < 2 * t ? -m * m * m + 5 * m * m * t - 8 * m * t * t + 4 * t * t * t : 0;
    return floor_div(w, (int64_t)1 << lost);
}

static Axis axis(int64_t size, int64_t wanted, int64_t begin, int64_t kept, int filter) {
    static const int reaches[] = {2, 4, 1};
    int copied = filter == NEAREST || size == wanted, lost = 0;
    int64_t d = size > wanted ? size : wanted, reach = copied ? 0 : reaches[filter];
    Axis a = {kept, copied ? 1 : reach * d / wanted + 2, NULL, NULL, NULL};
    if (filter == BICUBIC)
        while ((16 * d * d * d) >> lost >= (int64_t)1 << WEIGHT_BITS) lost++;
    a.start = take((size_t)kept * sizeof *a.start), a.taps = take((size_t)kept * sizeof *a.taps);
    a.coefficients = take((size_t)(kept * a.most) * sizeof *a.coefficients);
    for (int64_t k = 0; k < kept; k++) {
        int64_t i = begin + k, middle = (2 * i + 1) * size, total = 0;
        int32_t *c = a.coefficients + k * a.most;
        if (copied) {
            a.start[k] = (int32_t)(middle / (2 * wanted)), a.taps[k] = 1, c[0] = (int32_t)1 << BITS;
            continue;
        }
        int64_t first = floor_div(middle - wanted - reach * d, 2 * wanted) + 1;
        int64_t end = floor_div(middle - wanted + reach * d, 2 * wanted) + 1;
        if (first < 0) first = 0;
        if (end > size) end = size;
        a.start[k] = (int32_t)first, a.taps[k] = (int32_t)(end - first);
        for (int64_t j = first; j < end; j++) total += weight((2 * j + 1) * wanted - middle, d, filter, lost);
        for (int64_t j = first; j < end; j++) {
            int64_t w = weight((2 * j + 1) * wanted - middle, d, filter, lost);
            c[j - first] = (int32_t)floor_div(w * ((int64_t)2 << BITS) + total, 2 * total);
        }
    }
    return a;
}

static void free_axis(Axis *a) { free(a->start), free(a->taps), free(a->coefficients); }

/* One line of results; `step` is the distance of a pixel's channels, or of a column's rows, in the source. */
static uint8_t sum_of(const Axis *a, int64_t k, const uint8_t *in, int64_t step) {
    int64_t sum = (int64_t)1 << (BITS - 1);
    const int32_t *c = a->coefficients + k * a->most;
    for (int32_t j = 0; j < a->taps[k]; j++) sum += (int64_t)c[j] * in[(a->start[k] + j) * step];
    return sum < 0 ? 0 : sum >> BITS > 255 ? 255 : (uint8_t)(sum >> BITS);
}

static int64_t middle_of(int64_t rest) { return rest / 2 + (rest % 2 && rest / 2 % 2); }

/* The scaled size, and the first pixel that is kept, of the rule's size or of all; 0 if the rule refuses the size. */
static int scaled_size(const Rule *r, int64_t height, int64_t width, int64_t scaled[2], int64_t begin[2]) {
    begin[0] = begin[1] = 0, scaled[0] = r->height, scaled[1] = r->width;
    if (r->resize == NONE) return height == r->height && width == r->width;
    if (r->resize == PAD) {
        if (height * r->width <= width * r->height)
            scaled[0] = (2 * height * r->width + width) / (2 * width);
        else
            scaled[1] = (2 * width * r->height + height) / (2 * height);
        if (!scaled[0]) scaled[0] = 1;
        if (!scaled[1]) scaled[1] = 1;
    }
    if (r->resize == CROP) {
        int64_t shorter = height < width ? height : width;
        scaled[0] = r->short_side * height / shorter, scaled[1] = r->short_side * width / shorter;
        if (scaled[0] > MAX_SCALED_SIDE || scaled[1] > MAX_SCALED_SIDE) return 0;
        begin[0] = middle_of(scaled[0] - r->height), begin[1] = middle_of(scaled[1] - r->width);
    }
    return 1;
}

/* Along the width: the source rows that are needed, drawn one at a time. */
static uint8_t *narrowed(const Rule *r, uint64_t seed, uint32_t index, const Picture *p, const Axis *x, int64_t first,
                         int64_t rows) {
    int64_t c = r->channels, stored = p->width * p->channels;
    uint8_t *out = take((size_t)(rows * x->kept * c)), *drawn = take((size_t)stored),
            *row = take((size_t)(p->width * c));
    for (int64_t y = 0; y < rows; y++) {
        draw(seed, 1 + index, (uint64_t)((first + y) * stored), (size_t)stored, drawn);
        for (int64_t i = 0; i < p->width; i++) convert(drawn + i * p->channels, p->channels, r, row + i * c);
        for (int64_t k = 0; k < x->kept; k++)
            for (int64_t i = 0; i < c; i++) out[(y * x->kept + k) * c + i] = sum_of(x, k, row + i, c);
    }
    free(drawn), free(row);
    return out;
}

static void add_fill(Sha *s, const Rule *r, int64_t pixels) {
    for (int64_t i = 0; i < pixels * r->channels; i++) {
        uint8_t byte = (uint8_t)r->fill[i % r->channels];
        sha_add(s, &byte, 1);
    }
}

static void use_picture(const Rule *r, uint64_t seed, uint32_t index, const Picture *p, Sha *s) {
    int64_t scaled[2], begin[2];
    if (!scaled_size(r, p->height, p->width, scaled, begin))
        refuse_plain("a canned picture is of a size that the rule refuses");
    int64_t height = r->resize == PAD ? scaled[0] : r->height, width = r->resize == PAD ? scaled[1] : r->width;
    Axis y = axis(p->height, scaled[0], begin[0], height, r->filter);
    Axis x = axis(p->width, scaled[1], begin[1], width, r->filter);
    int64_t first = y.start[0], rows = y.start[height - 1] + y.taps[height - 1] - first, line = width * r->channels;
    int64_t top = (r->height - height) / 2, left = (r->width - width) / 2;
    uint8_t *source = narrowed(r, seed, index, p, &x, first, rows);
    free_axis(&x);
    for (int64_t k = 0; k < height; k++) y.start[k] -= (int32_t)first;
    add_fill(s, r, top * r->width);
    for (int64_t k = 0; k < height; k++) {
        add_fill(s, r, left);
        for (int64_t i = 0; i < line; i++) {
            uint8_t byte = sum_of(&y, k, source + i, line);
            sha_add(s, &byte, 1);
        }
        add_fill(s, r, r->width - width - left);
    }
    add_fill(s, r, (r->height - height - top) * r->width);
    free_axis(&y), free(source);
}

/* ---- the whole file ---- */

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *data;
    long end;
    if (!file || fseek(file, 0, SEEK_END) || (end = ftell(file)) < 0) refuse("cannot be read", path, strlen(path));
    if (end > MAX_FILE_BYTES) refuse_plain("the file is over the limit");
    rewind(file);
    data = take((size_t)end);
    *size = fread(data, 1, (size_t)end, file);
    if (*size != (size_t)end) refuse("cannot be read", path, strlen(path));
    fclose(file);
    return data;
}

static void read_payloads(Node *header, const uint8_t *body, size_t bytes) {
    Payload *order[4];
    size_t expected = 0, count = 0;
    for (Node *child = header->first; child; child = child->next)
        if (child->key) entry(child);
    if (!payloads[BYTES].there) refuse_plain("no payload of bytes");
    for (int i = 0; i < 4; i++)
        if (payloads[i].there) {
            size_t k = count++;
            for (; k && (order[k - 1]->begin > payloads[i].begin ||
                         (order[k - 1]->begin == payloads[i].begin && order[k - 1]->bytes > payloads[i].bytes));
                 k--)
                order[k] = order[k - 1];
            order[k] = &payloads[i];
        }
    for (size_t i = 0; i < count; i++) {
        if (order[i]->begin != expected) refuse_plain("a gap or an overlap between payloads");
        if (order[i]->bytes > bytes - expected) refuse_plain("the payloads are truncated");
        order[i]->data = body + expected;
        expected += order[i]->bytes;
    }
    if (expected != bytes) refuse_plain("bytes after the payloads");
}

typedef struct {
    size_t manifest, head;
    const char *digest;
} Facts;

static size_t decimal(const char **at, const char *end) {
    size_t found = 0;
    const char *begin = *at;
    while (*at < end && is_digit(**at) && *at - begin < 10) found = found * 10 + (size_t)(*(*at)++ - '0');
    if (*at == begin || (*begin == '0' && *at - begin > 1) || *at == end || *(*at)++ != ' ')
        refuse_plain("what the header says of the file");
    return found;
}

static Facts read_facts(const Node *node) {
    static const char format[] = "seedcnn-bundle/1 ";
    const char *at = node->text, *end = at + node->length;
    size_t length = sizeof format - 1;
    if (node->length < length || memcmp(at, format, length)) refuse("an unknown format", at, node->length);
    Facts f;
    at += length;
    f.manifest = decimal(&at, end), f.head = decimal(&at, end), f.digest = at;
    if (end - at != 64) refuse_plain("the digest of the payloads");
    for (; at < end; at++)
        if (!is_digit(*at) && (*at < 'a' || *at > 'f')) refuse_plain("the digest of the payloads");
    if (!f.manifest || f.manifest > MAX_MANIFEST_BYTES) refuse_plain("the manifest is over the limit");
    return f;
}

static Rule rule;

static void read_measured(Node *node) {
    Node *data = field(node, "data", TEXT);
    if (bytes_of(data) > MAX_NAME_BYTES) refuse_plain("the name of the test set is too long");
    int64_t count = integer(node, "count", 1, MAX_INT);
    integer(node, "correct", 0, count);
    done(node);
}

static void use_canned(Node *canned, uint64_t seed, int64_t images, const Picture *pictures, size_t count) {
    int64_t line = rule.width * rule.channels;
    uint8_t *row = take((size_t)line);
    const Node *wanted = hexadecimal(canned, "pictures_sha256", 64);
    char hex[65];
    Sha s;
    sha_begin(&s);
    for (int64_t i = 0; i < images * rule.height; i++) {
        draw(seed, 0, (uint64_t)(i * line), (size_t)line, row);
        sha_add(&s, row, (size_t)line);
    }
    sha_end(&s, hex);
    free(row);
    printf("images %s\n", hex);
    sha_begin(&s);
    for (size_t i = 0; i < count; i++) use_picture(&rule, seed, (uint32_t)i, &pictures[i], &s);
    sha_end(&s, hex);
    if (memcmp(hex, wanted->text, 64)) refuse_plain("the canned pictures do not become the bytes that are stated");
    printf("pictures %s\n", hex);
}

int main(int argc, char **argv) {
    size_t size, length = 0;
    char hex[65];
    if (argc != 2) return fprintf(stderr, "usage: %s FILE\n", argv[0]), 2;
    uint8_t *file = read_file(argv[1], &size);
    if (size < 8) refuse_plain("no header length");
    for (int i = 7; i >= 0; i--) {
        if (length > (size_t)MAX_HEADER_BYTES) refuse_plain("the header is over the limit");
        length = length << 8 | file[i];
    }
    if (length > MAX_HEADER_BYTES || length > size - 8 || length % 8) refuse_plain("the header's length");
    const char *header_text = (const char *)file + 8;
    size_t header_length = length;
    while (header_length && header_text[header_length - 1] == ' ') header_length--;
    Node *header = parse(header_text, header_length, 3, 0);
    Node *metadata = field(header, "__metadata__", OBJECT);
    Facts facts = read_facts(field(metadata, "seedcnn", TEXT));
    done(metadata);
    read_payloads(header, file + 8 + length, size - 8 - length);
    const Payload *bytes = &payloads[BYTES];
    if (facts.head > bytes->bytes) refuse_plain("manifest and graph are larger than their payload");
    check_digest(file + 8 + length, size - 8 - length, facts.digest, "payloads");

    char *text_of_manifest = (char *)expand_head(bytes->data, facts.head, facts.manifest, 1);
    Node *manifest = parse(text_of_manifest, facts.manifest, MAX_JSON_DEPTH, 1);
    Node *format = field(manifest, "format", TEXT);
    if (!is(format->text, format->length, "seedcnn-bundle/1"))
        refuse("an unknown format", format->text, format->length);
    Node *rng = text(manifest, "rng");
    if (!is(rng->text, rng->length, "seedcnn-rng/1")) refuse("an unknown generator", rng->text, rng->length);
    Node *model = text(manifest, "model");
    text(manifest, "family");
    int64_t release = integer(manifest, "release", 1, MAX_INT);
    integer(manifest, "min_release", 0, release);
    Node *labels = field(manifest, "labels", LIST);
    if (!labels->children || labels->children > MAX_LABELS) refuse_plain("no label, or too many");
    for (Node *label = labels->first; label; label = label->next)
        if (label->kind != TEXT) refuse_plain("a label that is no text");

    Node *list = field(manifest, "tensors", LIST), *graph = field(manifest, "graph", OBJECT);
    Node *values_digest = hexadecimal(manifest, "tensors_sha256", 64), *how = text(manifest, "integers");
    if (!is(how->text, how->length, "entropy") && !is(how->text, how->length, "zstd") &&
        !is(how->text, how->length, "zlib") && !is(how->text, how->length, "xz"))
        refuse("integers that are stored in an unknown way", how->text, how->length);
    if (list->children > MAX_TENSORS) refuse_plain("too many tensors");
    size_t count = 0, total = 0;
    Tensor *tensors = take(list->children * sizeof *tensors);
    for (Node *node = list->first; node; node = node->next) {
        tensors[count] = read_tensor(node);
        for (size_t i = 0; i < count; i++)
            if (tensors[i].name->length == tensors[count].name->length &&
                !memcmp(tensors[i].name->text, tensors[count].name->text, tensors[i].name->length))
                refuse_plain("a tensor twice");
        total += tensors[count++].elements;
        if (total > (size_t)MAX_EXPANDED_BYTES / 4) refuse_plain("the tensors expand over the limit");
    }
    pair_scales(tensors, count);
    size_t graph_size = (size_t)integer(graph, "size", 1, MAX_GRAPH_BYTES);
    Node *graph_digest = hexadecimal(graph, "sha256", 64);
    text(graph, "input");
    text(graph, "output");
    done(graph);

    rule = read_rule(field(manifest, "preprocessing", OBJECT));
    Node *canned = field(manifest, "canned", OBJECT);
    uint64_t seed = word(canned, "seed");
    int64_t images = integer(canned, "count", 1, MAX_CANNED_IMAGES);
    integer(canned, "exponent", -60, 60);
    static Picture pictures[MAX_CANNED_PICTURES];
    size_t picture_count = read_pictures(field(canned, "pictures", LIST), pictures);
    Node *logits_digest = hexadecimal(canned, "sha256", 64);
    integer(canned, "tolerance_e6", 0, 1000000000);
    int64_t line = rule.width * rule.channels, canned_bytes = images * rule.height * line;
    for (size_t i = 0; i < picture_count; i++)
        canned_bytes += pictures[i].height * pictures[i].width * pictures[i].channels;
    if (canned_bytes > MAX_CANNED_BYTES) refuse_plain("the canned images and pictures are over the limit");
    for (Node *child = manifest->first; child; child = child->next)
        if (child->key && is(child->key, child->key_length, "measured")) {
            read_measured(field(manifest, "measured", OBJECT));
            break;
        }
    read_norms(has(manifest, "norms") ? field(manifest, "norms", LIST) : NULL, tensors, count);
    done(manifest);
    size_t logits = 2 * (size_t)images * labels->children, rest = bytes->bytes - facts.head;
    if (rest < logits) refuse_plain("the canned logits are truncated");

    printf("bundle %.*s release %lld\n", (int)model->length, model->text, (long long)release);
    int16_t *q = place_tensors(tensors, count, bytes->data + facts.head, rest - logits, how);
    Sha all;
    sha_begin(&all);
    for (size_t i = 0; i < count; i++) use_tensor(&tensors[i], &all);
    sha_end(&all, hex);
    if (memcmp(hex, values_digest->text, 64)) refuse_plain("the expanded values do not match their digest");
    free(q);
    uint8_t *onnx = expand_head(bytes->data, facts.head, facts.manifest + graph_size, 0) + facts.manifest;
    check_digest(onnx, graph_size, graph_digest->text, "graph");
    printf("graph %.64s\n", graph_digest->text);
    check_digest(bytes->data + bytes->bytes - logits, logits, logits_digest->text, "canned logits");
    use_canned(canned, seed, images, pictures, picture_count);
    done(canned);
    return 0;
}
