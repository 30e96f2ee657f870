/* Weight updates of one row, number by number, and tangents through them: hpo_bench/core/sgd.py and
   hpo_bench/rules/adam.py say what is computed.

   Each operation is rounded by itself, or fused where torch fuses it (addcmul), so the numbers are torch's.
   Include it after lanes.h, once for float and once for double. */

#ifndef MEMORIES
#define MEMORIES 4
#define HYPERS 6
#define VECTORS 2 /* the first of a rule's memories are vectors (P), the others are numbers */
#define MOST_TANGENTS 8
enum { SGD, ADAMW };              /* kinds of rules */
enum { LR, WEIGHT_DECAY, OTHER }; /* hyperparameters, in the order of their values */
#define ADAMW_SUMS 6
enum { MOMENTUM = OTHER, BETA1 = OTHER, REST1, BETA2, REST2 };
#endif

/* A hyperparameter: repetition r's value for weight p is at r * row + p * weight. */
typedef struct {
    const REAL *values;
    long row, weight;
} NAME(hyper);

/* A rule with its hyperparameters and what it carries, of all rows or of one.

   SGD: lr, weight decay, momentum; the buffer (R, P).
   AdamW: lr, weight decay, beta1, 1 - beta1, beta2, 1 - beta2, of which the last four are one number a row; both
   moments (R, P) and both bias corrections (R). */
typedef struct {
    long kind;
    NAME(hyper) hypers[HYPERS];
    double eps;
    REAL *memory[MEMORIES]; /* NULL after the last one */
} NAME(rule);

/* Tangents of weights and buffer (n, R, P) with respect to n raw hyperparameters: which they are, the derivatives of
   their natural values, one a row, and what all tangents are multiplied by before each update. */
typedef struct {
    long count;
    const uint8_t *names;
    const NAME(hyper) * slopes;
    double discount;
    REAL *weights, *buffer;
} NAME(tangents);

static NAME(hyper) NAME(own_hyper)(NAME(hyper) h, long row) {
    h.values += row * h.row;
    return h;
}

/* How many numbers memory m of a row of P weights is. */
static long NAME(memory_size)(int m, long weights) { return m < VECTORS ? weights : 1; }

static NAME(rule) NAME(own_rule)(const NAME(rule) * rule, long row, long weights) {
    NAME(rule) own = *rule;
    for (int h = 0; h < HYPERS; h++)
        if (own.hypers[h].values) own.hypers[h] = NAME(own_hyper)(own.hypers[h], row);
    for (int m = 0; m < MEMORIES; m++)
        if (own.memory[m]) own.memory[m] += row * NAME(memory_size)(m, weights);
    return own;
}

/* The values for the n weights from p on. */
ALWAYS VEC NAME(of_weights)(NAME(hyper) h, long p, long n) {
    return h.weight ? LOAD_SOME(h.values + p, n) : SPREAD(*h.values);
}

/* 0 if all numbers are finite, else NaN. */
static REAL NAME(all_finite)(const REAL *numbers, long count) {
    VEC sums = ZERO();
    long p = 0;
    for (; p + LANES <= count; p += LANES) sums = FMA(LOAD(numbers + p), ZERO(), sums);
    REAL each[LANES], total = 0;
    STORE(each, sums);
    for (int lane = 0; lane < LANES; lane++) total += each[lane];
    for (; p < count; p++) total = FMA1(numbers[p], 0, total);
    return total;
}

/* m <- mu m + (g + wd w), w <- w - lr m for the n weights from p on. */
ALWAYS void NAME(sgd_lanes)(REAL *weights, const REAL *gradient, const NAME(rule) * rule, long p, long n) {
    const NAME(hyper) *h = rule->hypers;
    REAL *buffer = rule->memory[0];
    VEC w = LOAD_SOME(weights + p, n);
    VEC decayed = FMA(NAME(of_weights)(h[WEIGHT_DECAY], p, n), w, LOAD_SOME(gradient + p, n));
    VEC m = FMA(NAME(of_weights)(h[MOMENTUM], p, n), LOAD_SOME(buffer + p, n), decayed);
    VEC lr = SUB(ZERO(), NAME(of_weights)(h[LR], p, n));
    STORE_SOME(buffer + p, m, n);
    STORE_SOME(weights + p, FMA(lr, m, w), n);
}

/* An update of AdamW of one row: what goes into it, and the bias corrections after it. */
typedef struct {
    const REAL *weights, *gradient;
    const NAME(rule) * before;
    REAL correction1, correction2;
} NAME(adamw);

/* Its numbers for some weights, by their names in adam.py. */
typedef struct {
    VEC weights, gradient, first, second, mean, root, scale, direction;
} NAME(adamw_numbers);

static NAME(adamw) NAME(adamw_of)(const REAL *weights, const REAL *gradient, const NAME(rule) * before) {
    const NAME(hyper) *h = before->hypers;
    REAL correction1 = FMA1(*h[BETA1].values, *before->memory[2], *h[REST1].values);
    REAL correction2 = FMA1(*h[BETA2].values, *before->memory[3], *h[REST2].values);
    return (NAME(adamw)){weights, gradient, before, correction1, correction2};
}

ALWAYS NAME(adamw_numbers) NAME(adamw_at)(const NAME(adamw) * u, long p, long n) {
    const NAME(hyper) *h = u->before->hypers;
    VEC w = LOAD_SOME(u->weights + p, n), g = LOAD_SOME(u->gradient + p, n);
    VEC square = MUL(MUL(SPREAD(*h[REST2].values), g), g);
    VEC m = FMA(SPREAD(*h[BETA1].values), LOAD_SOME(u->before->memory[0] + p, n), MUL(SPREAD(*h[REST1].values), g));
    VEC v = FMA(SPREAD(*h[BETA2].values), LOAD_SOME(u->before->memory[1] + p, n), square);
    VEC mean = DIV(m, SPREAD(u->correction1)), root = SQRT(DIV(v, SPREAD(u->correction2)));
    VEC scale = ADD(root, SPREAD((REAL)u->before->eps));
    VEC direction = FMA(NAME(of_weights)(h[WEIGHT_DECAY], p, n), w, DIV(mean, scale));
    return (NAME(adamw_numbers)){w, g, m, v, mean, root, scale, direction};
}

/* The update of the n weights from p on, all but the bias corrections. */
ALWAYS void NAME(adamw_lanes)(REAL *weights, const NAME(adamw) * u, long p, long n) {
    NAME(adamw_numbers) x = NAME(adamw_at)(u, p, n);
    VEC lr = SUB(ZERO(), NAME(of_weights)(u->before->hypers[LR], p, n));
    STORE_SOME(u->before->memory[0] + p, x.first, n);
    STORE_SOME(u->before->memory[1] + p, x.second, n);
    STORE_SOME(weights + p, FMA(lr, x.direction, x.weights), n);
}

/* Covectors of m' and v' from that of the update divided by the learning rate; 1/root is 0 where the root is. */
ALWAYS VEC NAME(first_bar)(const NAME(adamw) * u, const NAME(adamw_numbers) * x, VEC along) {
    return DIV(DIV(along, x->scale), SPREAD(u->correction1));
}
ALWAYS VEC NAME(second_bar)(const NAME(adamw) * u, const NAME(adamw_numbers) * x, VEC along) {
    VEC mean_bar = MUL(SPREAD((REAL)-0.5), DIV(along, x->scale));
    VEC scale_bar = DIV(MUL(mean_bar, x->mean), x->scale);
    VEC inverse = KEEP(GREATER(x->root, ZERO()), DIV(SPREAD(1), x->root));
    return DIV(MUL(scale_bar, inverse), SPREAD(u->correction2));
}

/* What the decay adds to the update's derivative: lr wd. */
ALWAYS VEC NAME(adamw_decay)(const NAME(adamw) * u, long p, long n) {
    const NAME(hyper) *h = u->before->hypers;
    return MUL(NAME(of_weights)(h[LR], p, n), NAME(of_weights)(h[WEIGHT_DECAY], p, n));
}

/* d (P) = the update's derivative with respect to the gradient, the moments before it being constants. */
static void NAME(adamw_through)(const NAME(adamw) * u, long count, REAL *through) {
    const NAME(hyper) *h = u->before->hypers;
    VEC rest1 = SPREAD(*h[REST1].values), rest2 = MUL(SPREAD(2), SPREAD(*h[REST2].values));
    for (long p = 0; p < count; p += LANES) {
        NAME(adamw_numbers) x = NAME(adamw_at)(u, p, count - p);
        VEC lr = NAME(of_weights)(h[LR], p, count - p);
        VEC first = MUL(rest1, NAME(first_bar)(u, &x, lr)), second = MUL(rest2, NAME(second_bar)(u, &x, lr));
        STORE_SOME(through + p, FMA(second, x.gradient, first), count - p);
    }
}

/* Inner products of a covector a of the update with what each hyperparameter multiplies: for lr and for weight decay;
   for either beta with the change of its moment, and with that of its bias correction. */
static void NAME(adamw_sums)(const NAME(adamw) * u, long count, const REAL *a, REAL *sums) {
    const NAME(hyper) *h = u->before->hypers;
    VEC parts[ADAMW_SUMS][PARTS];
    for (int sum = 0; sum < ADAMW_SUMS; sum++)
        for (int part = 0; part < PARTS; part++) parts[sum][part] = ZERO();
    for (long begin = 0; begin < count; begin += SUM_LANES) {
        for (int part = 0; part < PARTS; part++) {
            long p = begin + part * LANES, n = count - p;
            if (n <= 0) break;
            NAME(adamw_numbers) x = NAME(adamw_at)(u, p, n);
            VEC each = LOAD_SOME(a + p, n), along = MUL(NAME(of_weights)(h[LR], p, n), each);
            VEC first = NAME(first_bar)(u, &x, along), second = NAME(second_bar)(u, &x, along);
            VEC old1 = LOAD_SOME(u->before->memory[0] + p, n), old2 = LOAD_SOME(u->before->memory[1] + p, n);
            VEC change2 = SUB(old2, MUL(x.gradient, x.gradient));
            parts[0][part] = FMA(each, x.direction, parts[0][part]);
            parts[1][part] = FMA(along, x.weights, parts[1][part]);
            parts[2][part] = FMA(first, SUB(old1, x.gradient), parts[2][part]);
            parts[3][part] = FMA(SUB(ZERO(), first), x.mean, parts[3][part]);
            parts[4][part] = FMA(second, change2, parts[4][part]);
            parts[5][part] = FMA(SUB(ZERO(), second), MUL(x.root, x.root), parts[5][part]);
        }
    }
    for (int sum = 0; sum < ADAMW_SUMS; sum++) sums[sum] = FOLD(parts[sum]);
}

/* One update of one row's `count` weights, and of what its rule carries. */
static void NAME(update)(long count, REAL *weights, const REAL *gradient, const NAME(rule) * rule) {
    long p = 0;
    if (rule->kind == SGD) {
        for (; p + LANES <= count; p += LANES) NAME(sgd_lanes)(weights, gradient, rule, p, LANES);
        if (p < count) NAME(sgd_lanes)(weights, gradient, rule, p, count - p);
        return;
    }
    NAME(adamw) u = NAME(adamw_of)(weights, gradient, rule);
    for (; p + LANES <= count; p += LANES) NAME(adamw_lanes)(weights, &u, p, LANES);
    if (p < count) NAME(adamw_lanes)(weights, &u, p, count - p);
    *rule->memory[2] = u.correction1;
    *rule->memory[3] = u.correction2;
}

/* What tangents need of an update of SGD: weights and buffer before it, the buffer after it, and the factors in force. */
typedef struct {
    const REAL *weights, *buffer, *new_buffer;
    const NAME(hyper) * hypers;
} NAME(made);

/* The tangent with respect to one hyperparameter, for the n weights from p on, `product` being H times that of the
   weights:  dm <- mu dm + (product + wd dw) + own,  dw <- dw - lr dm - own. */
ALWAYS void NAME(tangent_lanes)(
    const NAME(made) * u, int name, REAL slope, const REAL *product, REAL *weights, REAL *buffer, long p, long n) {
    VEC dw = LOAD_SOME(weights + p, n);
    VEC decayed = FMA(NAME(of_weights)(u->hypers[WEIGHT_DECAY], p, n), dw, LOAD_SOME(product + p, n));
    VEC dm = FMA(NAME(of_weights)(u->hypers[MOMENTUM], p, n), LOAD_SOME(buffer + p, n), decayed);
    if (name == WEIGHT_DECAY) dm = ADD(dm, MUL(SPREAD(slope), LOAD_SOME(u->weights + p, n)));
    if (name == MOMENTUM) dm = ADD(dm, MUL(SPREAD(slope), LOAD_SOME(u->buffer + p, n)));
    VEC lr = SUB(ZERO(), NAME(of_weights)(u->hypers[LR], p, n));
    dw = FMA(lr, dm, dw);
    if (name == LR) dw = SUB(dw, MUL(SPREAD(slope), LOAD_SOME(u->new_buffer + p, n)));
    STORE_SOME(buffer + p, dm, n);
    STORE_SOME(weights + p, dw, n);
}

/* The tangent after the update, of one row; zeros where it is not finite. */
static void NAME(push_tangent)(
    long count, const NAME(made) * u, int name, REAL slope, const REAL *product, REAL *weights, REAL *buffer) {
    long p = 0;
    for (; p + LANES <= count; p += LANES)
        NAME(tangent_lanes)(u, name, slope, product, weights, buffer, p, LANES);
    if (p < count) NAME(tangent_lanes)(u, name, slope, product, weights, buffer, p, count - p);
    if (NAME(all_finite)(weights, count) == 0) return;
    memset(weights, 0, sizeof(REAL) * count);
    memset(buffer, 0, sizeof(REAL) * count);
}

static void NAME(scale)(REAL *numbers, long count, REAL by) {
    long p = 0;
    for (; p + LANES <= count; p += LANES) STORE(numbers + p, MUL(LOAD(numbers + p), SPREAD(by)));
    for (; p < count; p++) numbers[p] = numbers[p] * by;
}
