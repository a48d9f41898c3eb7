/* ONNX Runtime operator seedcnn::GroupNLGenerator: writes seed maps and the maps generated from them in one pass.
 *
 * y = cat(z, A * f(W * z[source] + B) + C) over channels, then an optional ReLU.
 *   inputs      z float32 [N, c_seed, H, W]; W, B float32 with c_gen values each; A, C likewise, both or neither
 *   attributes  nlf: sine | triangle | gaussian | abs | negate | identity; groups (divides c_seed); relu: 0 | 1
 *   output      float32 [N, c_seed + c_gen, H, W]
 * source[c] = (c / n / gamma) * n + c % n with n = c_seed / groups and gamma = ceil(c_gen / c_seed).
 * The operator starts no threads. Its loops are plain; the compiler vectorises them.
 *
 * The parts of the runtime's C interface that are used are declared here: a table of functions that only ever grows,
 * read by slot, and the description of an operator in interface version 16 (ONNX Runtime 1.16).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTERFACE_VERSION 16
#define INVALID_ARGUMENT 2
#define FAIL 1
#define FLOAT_TENSOR 1

enum slot {
    CREATE_STATUS = 0,
    CREATE_CUSTOM_OP_DOMAIN = 26,
    CUSTOM_OP_DOMAIN_ADD = 27,
    ADD_CUSTOM_OP_DOMAIN = 28,
    GET_TENSOR_MUTABLE_DATA = 51,
    GET_DIMENSIONS_COUNT = 61,
    GET_DIMENSIONS = 62,
    GET_TENSOR_TYPE_AND_SHAPE = 65,
    KERNEL_INFO_GET_INT64 = 86,
    KERNEL_INFO_GET_STRING = 87,
    KERNEL_CONTEXT_GET_INPUT = 90,
    KERNEL_CONTEXT_GET_OUTPUT = 91,
    RELEASE_TENSOR_TYPE_AND_SHAPE_INFO = 99
};

typedef void (*function)(void);
typedef const function *api_table;
typedef void *status; /* NULL is success */

typedef struct {
    api_table (*get_api)(uint32_t version);
    const char *(*get_version_string)(void);
} api_base;

typedef struct custom_op custom_op;
struct custom_op {
    uint32_t version;
    void *(*create_kernel)(const custom_op *, api_table, const void *info);
    const char *(*get_name)(const custom_op *);
    const char *(*get_execution_provider)(const custom_op *);
    int (*get_input_type)(const custom_op *, size_t);
    size_t (*get_input_count)(const custom_op *);
    int (*get_output_type)(const custom_op *, size_t);
    size_t (*get_output_count)(const custom_op *);
    void (*compute)(void *, void *);
    void (*destroy)(void *);
    int (*get_input_characteristic)(const custom_op *, size_t);
    int (*get_output_characteristic)(const custom_op *, size_t);
    int (*get_input_memory)(const custom_op *, size_t);
    int (*variadic[4])(const custom_op *);
    status (*create_kernel_v2)(const custom_op *, api_table, const void *info, void **kernel);
    status (*compute_v2)(void *, void *);
    function later[8]; /* fields of later versions, never read for version 16 */
};

#define CALL(api, slot, type) ((type)(api)[slot])

static status fail(api_table api, int code, const char *text) {
    return CALL(api, CREATE_STATUS, status(*)(int, const char *))(code, text);
}

/* --- the functions ---------------------------------------------------------------------------------------------- */

/* Adding this to a float below 2^22 rounds it to an integer, which is then in the low bits. */
#define ROUNDER 12582912.0f

static inline uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Reduce by pi in three parts, then an odd minimax polynomial of degree 9: within 1e-6 for |u| <= 1e4. */
static inline float sine(float u) {
    const float shifted = u * 0.318309886183790672f + ROUNDER;
    const float k = shifted - ROUNDER;
    float t = u - k * 3.140625f;
    t = t - k * 9.67502593994140625e-4f;
    t = t - k * 1.5099579897537296e-7f;
    const float s = t * t;
    float p = 2.5998616309625897e-06f;
    p = p * s - 0.00019806528383712468f;
    p = p * s + 0.00833301609784191f;
    p = p * s - 0.1666665704814885f;
    p = p * s * t + t;
    return float_of(bits_of(p) ^ (bits_of(shifted) << 31)); /* odd multiples of pi flip the sign */
}

static inline float triangle(float u) {
    const float v = u * 0.159154943091895336f - 0.25f;
    const float k = (v + ROUNDER) - ROUNDER;
    return 1.0f - 4.0f * float_of(bits_of(v - k) & 0x7fffffffu);
}

/* exp(-u*u) = 2^k * 2^f; results below 2^-126 are raised to it. */
static inline float gaussian(float u) {
    float t = u * u * -1.44269504088896341f;
    t = t < -126.0f ? -126.0f : t;
    const float shifted = t + ROUNDER;
    const float f = t - (shifted - ROUNDER);
    float p = 0.00015461444724808513f;
    p = p * f + 0.0013400428177711937f;
    p = p * f + 0.00961805667843204f;
    p = p * f + 0.05550327226669895f;
    p = p * f + 0.24022650922289554f;
    p = p * f + 0.6931472067028329f;
    p = p * f + 1.0f;
    return p * float_of((bits_of(shifted) + 127u) << 23);
}

static inline float absolute(float u) { return float_of(bits_of(u) & 0x7fffffffu); }
static inline float negate(float u) { return -u; }
static inline float identity(float u) { return u; }

typedef struct {
    float w, b, a, c;
} affine;

typedef void (*plane_function)(const float *, float *, size_t, affine);

/* One map of n values, in two variants so that no loop tests for the ReLU. NaN passes through. */
#define PLANE(f)                                                                                      \
    static void plane_##f(const float *restrict z, float *restrict y, size_t n, affine k) {           \
        for (size_t i = 0; i < n; i++) y[i] = k.a * f(k.w * z[i] + k.b) + k.c;                        \
    }                                                                                                 \
    static void plane_relu_##f(const float *restrict z, float *restrict y, size_t n, affine k) {      \
        for (size_t i = 0; i < n; i++) {                                                              \
            const float v = k.a * f(k.w * z[i] + k.b) + k.c;                                          \
            y[i] = v < 0.0f ? 0.0f : v;                                                               \
        }                                                                                             \
    }

PLANE(sine)
PLANE(triangle)
PLANE(gaussian)
PLANE(absolute)
PLANE(negate)
PLANE(identity)

typedef struct {
    const char *name;
    plane_function plain, relu;
} named_function;

static const named_function FUNCTIONS[] = {
    {"sine", plane_sine, plane_relu_sine},
    {"triangle", plane_triangle, plane_relu_triangle},
    {"gaussian", plane_gaussian, plane_relu_gaussian},
    {"abs", plane_absolute, plane_relu_absolute},
    {"negate", plane_negate, plane_relu_negate},
    {"identity", plane_identity, plane_relu_identity},
};

static void seeds(const float *restrict z, float *restrict y, size_t n, int relu) {
    if (!relu) {
        memcpy(y, z, n * sizeof *y);
        return;
    }
    for (size_t i = 0; i < n; i++) y[i] = z[i] < 0.0f ? 0.0f : z[i];
}

/* --- the operator ----------------------------------------------------------------------------------------------- */

#define MAX_TEXT 160

typedef struct {
    api_table api;
    plane_function run;
    int64_t groups;
    int relu;
} kernel;

typedef struct {
    const float *data;
    int64_t shape[4];
    int64_t values;
    size_t rank;
    int given;
} tensor;

/* Read input `index`; an optional input that is absent is not `given`. */
static status read_input(api_table api, void *context, size_t index, tensor *found) {
    const void *value = NULL;
    void *shape = NULL;
    status bad;
    memset(found, 0, sizeof *found);
    if ((bad = CALL(api, KERNEL_CONTEXT_GET_INPUT, status(*)(void *, size_t, const void **))(context, index, &value)))
        return bad;
    if (!value) return NULL;
    found->given = 1;
    if ((bad = CALL(api, GET_TENSOR_TYPE_AND_SHAPE, status(*)(const void *, void **))(value, &shape))) return bad;
    bad = CALL(api, GET_DIMENSIONS_COUNT, status(*)(const void *, size_t *))(shape, &found->rank);
    if (!bad && found->rank <= 4)
        bad = CALL(api, GET_DIMENSIONS, status(*)(const void *, int64_t *, size_t))(shape, found->shape, found->rank);
    CALL(api, RELEASE_TENSOR_TYPE_AND_SHAPE_INFO, void (*)(void *))(shape);
    if (bad) return bad;
    if (found->rank > 4) return fail(api, INVALID_ARGUMENT, "GroupNLGenerator: an input has more than 4 axes");
    found->values = 1;
    for (size_t i = 0; i < found->rank; i++) found->values *= found->shape[i];
    return CALL(api, GET_TENSOR_MUTABLE_DATA, status(*)(const void *, void **))(value, (void **)&found->data);
}

static status check(const kernel *self, const tensor in[5]) {
    char text[MAX_TEXT];
    const int64_t c_seed = in[0].shape[1], c_gen = in[1].values;
    if (in[0].rank != 4) return fail(self->api, INVALID_ARGUMENT, "GroupNLGenerator: z must be [N, c_seed, H, W]");
    if (c_seed < 1 || c_seed % self->groups) {
        snprintf(text, sizeof text, "GroupNLGenerator: z has %lld channels, which groups (=%lld) must divide",
                 (long long)c_seed, (long long)self->groups);
        return fail(self->api, INVALID_ARGUMENT, text);
    }
    if (c_gen < 1) return fail(self->api, INVALID_ARGUMENT, "GroupNLGenerator: W holds no value");
    if (in[3].given != in[4].given)
        return fail(self->api, INVALID_ARGUMENT, "GroupNLGenerator: A and C must both be given, or neither");
    for (int i = 1; i < 5; i++) {
        if (in[i].values == c_gen || !in[i].given) continue;
        snprintf(text, sizeof text, "GroupNLGenerator: input %d holds %lld values, W holds %lld; they must match", i,
                 (long long)in[i].values, (long long)c_gen);
        return fail(self->api, INVALID_ARGUMENT, text);
    }
    return NULL;
}

static status compute(void *kernel_, void *context) {
    const kernel *self = kernel_;
    tensor in[5];
    status bad;
    void *out = NULL;
    float *y = NULL;
    for (size_t i = 0; i < 5; i++)
        if ((bad = read_input(self->api, context, i, &in[i]))) return bad;
    if ((bad = check(self, in))) return bad;
    const int64_t c_seed = in[0].shape[1], c_gen = in[1].values;
    const int64_t shape[4] = {in[0].shape[0], c_seed + c_gen, in[0].shape[2], in[0].shape[3]};
    if ((bad = CALL(self->api, KERNEL_CONTEXT_GET_OUTPUT, status(*)(void *, size_t, const int64_t *, size_t, void **))(
             context, 0, shape, 4, &out)))
        return bad;
    if ((bad = CALL(self->api, GET_TENSOR_MUTABLE_DATA, status(*)(void *, void **))(out, (void **)&y))) return bad;
    const int64_t n = c_seed / self->groups, gamma = (c_gen + c_seed - 1) / c_seed;
    const size_t plane = (size_t)(shape[2] * shape[3]);
    for (int64_t image = 0; image < shape[0]; image++) {
        const float *z = in[0].data + (size_t)(image * c_seed) * plane;
        float *to = y + (size_t)(image * shape[1]) * plane;
        seeds(z, to, (size_t)c_seed * plane, self->relu);
        to += (size_t)c_seed * plane;
        for (int64_t c = 0; c < c_gen; c++, to += plane) {
            const int64_t source = c / n / gamma * n + c % n;
            const affine k = {in[1].data[c], in[2].data[c], in[3].given ? in[3].data[c] : 1.0f,
                              in[4].given ? in[4].data[c] : 0.0f};
            self->run(z + (size_t)source * plane, to, plane, k);
        }
    }
    return NULL;
}

static status create(const custom_op *op, api_table api, const void *info, void **made) {
    char nlf[16] = "", text[MAX_TEXT];
    size_t size = sizeof nlf;
    int64_t groups = 0, relu = 0;
    status bad;
    (void)op;
    status (*get_integer)(const void *, const char *, int64_t *) =
        CALL(api, KERNEL_INFO_GET_INT64, status(*)(const void *, const char *, int64_t *));
    if ((bad = CALL(api, KERNEL_INFO_GET_STRING, status(*)(const void *, const char *, char *, size_t *))(
             info, "nlf", nlf, &size)))
        return bad;
    if ((bad = get_integer(info, "groups", &groups))) return bad;
    if ((bad = get_integer(info, "relu", &relu))) return bad;
    if (groups < 1 || relu < 0 || relu > 1) {
        snprintf(text, sizeof text, "GroupNLGenerator: groups (=%lld) must be positive and relu (=%lld) 0 or 1",
                 (long long)groups, (long long)relu);
        return fail(api, INVALID_ARGUMENT, text);
    }
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        if (strcmp(nlf, FUNCTIONS[i].name)) continue;
        kernel *self = malloc(sizeof *self);
        if (!self) return fail(api, FAIL, "GroupNLGenerator: no memory");
        *self = (kernel){api, relu ? FUNCTIONS[i].relu : FUNCTIONS[i].plain, groups, (int)relu};
        *made = self;
        return NULL;
    }
    snprintf(text, sizeof text, "GroupNLGenerator: nlf (=%.15s) is not a function of this library", nlf);
    return fail(api, INVALID_ARGUMENT, text);
}

static const char *name(const custom_op *op) { return (void)op, "GroupNLGenerator"; }
static const char *provider(const custom_op *op) { return (void)op, NULL; } /* NULL is the CPU */
static int type_of(const custom_op *op, size_t index) { return (void)op, (void)index, FLOAT_TENSOR; }
static size_t inputs(const custom_op *op) { return (void)op, 5; }
static size_t outputs(const custom_op *op) { return (void)op, 1; }
static int required_then_optional(const custom_op *op, size_t index) { return (void)op, index > 2; }
static int required(const custom_op *op, size_t index) { return (void)op, (void)index, 0; }
static int memory(const custom_op *op, size_t index) { return (void)op, (void)index, 0; }
static int one(const custom_op *op) { return (void)op, 1; }

static const custom_op OPERATOR = {
    .version = INTERFACE_VERSION,
    .get_name = name,
    .get_execution_provider = provider,
    .get_input_type = type_of,
    .get_input_count = inputs,
    .get_output_type = type_of,
    .get_output_count = outputs,
    .destroy = free,
    .get_input_characteristic = required_then_optional,
    .get_output_characteristic = required,
    .get_input_memory = memory,
    .variadic = {one, one, one, one},
    .create_kernel_v2 = create,
    .compute_v2 = compute,
};

/* The entry point that ONNX Runtime calls; all sessions of the process share one domain. */
__attribute__((visibility("default"))) status RegisterCustomOps(void *options, const api_base *base) {
    static void *domain;
    api_table api = base->get_api(INTERFACE_VERSION);
    if (!api) {
        api = base->get_api(1);
        return api ? fail(api, FAIL, "seedcnn's operator needs ONNX Runtime 1.16 or later") : NULL;
    }
    void *shared = __atomic_load_n(&domain, __ATOMIC_ACQUIRE);
    if (!shared) {
        status bad = CALL(api, CREATE_CUSTOM_OP_DOMAIN, status(*)(const char *, void **))("seedcnn", &shared);
        if (bad) return bad;
        if ((bad = CALL(api, CUSTOM_OP_DOMAIN_ADD, status(*)(void *, const custom_op *))(shared, &OPERATOR))) return bad;
        __atomic_store_n(&domain, shared, __ATOMIC_RELEASE);
    }
    return CALL(api, ADD_CUSTOM_OP_DOMAIN, status(*)(void *, void *))(options, shared);
}
