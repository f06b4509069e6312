/* Damaged input of every kind, from a seeded list: 300 files of rows and 100 dumps, in each of
 * which some rows are mutated. Nothing ends the whole, the rows that were not touched are all
 * there, and the counts add up. */
#include "prepared.h"

#include "base/hash.h"

enum { N_FILE = 300, FILES_PER_RUN = 10, N_DUMP = 100, N_ROW = 12, N_RANKS_RUN = 2 };

/* --- mutations -------------------------------------------------------------------------------- */

static uint64_t draw_state;

/* From [0, n). */
static size_t draw(size_t n)
{
    draw_state++;
    return (size_t)(qp_hash_bytes(&draw_state, sizeof draw_state) % (n > 0 ? n : 1));
}

/* What is put in: what breaks texts, numbers, types, tokens and markup. */
static const char *const insertions[] = {"\"",
                                         "{",
                                         "}",
                                         "[",
                                         "]",
                                         ":",
                                         ",",
                                         "\\",
                                         "\\u0000",
                                         "\\ud83d",
                                         "\\udc00x",
                                         "null",
                                         "1e999",
                                         "NaN",
                                         "-",
                                         "true",
                                         "{}",
                                         "[[]]",
                                         "\xff",
                                         "\xed\xa0\x80",
                                         "\xc3",
                                         "\xef\xbb\xbf",
                                         "\x01\x0e",
                                         "\n",
                                         "<|im_end|>",
                                         "<|im_start|>",
                                         "&",
                                         "&#x0E;",
                                         "&#55296;",
                                         "&#xFFFFFFFFFF;",
                                         "&nbsp;",
                                         "<",
                                         ">",
                                         "/>",
                                         "'",
                                         "=",
                                         "\"role\":7,",
                                         "\"text\":3,",
                                         "\"x\":1",
                                         "Id=\"1\" ",
                                         "Score=\"abc\"",
                                         "123456789012345678901234567890"};

/* Takes away, doubles, overwrites or puts in a part of the row. */
static void mutate(qp_str_t *row)
{
    const size_t at = draw(row->n), left = row->n - at, n = 1 + draw(left < 12 ? left : 12);
    qp_str_t result = {0};
    qp_str_append(&result, row->data, at);
    switch (draw(5)) {
    case 0: /* a part is missing */
        qp_str_append(&result, row->data + at + n, left > n ? left - n : 0);
        break;
    case 1: /* cut */
        break;
    case 2: /* a part is there twice */
        qp_str_append(&result, row->data + at, n < left ? n : left);
        qp_str_append(&result, row->data + at, left);
        break;
    case 3: /* other bytes */
        for (size_t i = 0; i < n && i < left; i++)
            qp_str_putc(&result, (char)draw(256));
        qp_str_append(&result, row->data + at + n, left > n ? left - n : 0);
        break;
    default:
        for (size_t i = 0, many = draw(20) == 0 ? 3000 : 1,
                    k = draw(sizeof insertions / sizeof *insertions);
             i < many; i++)
            qp_str_puts(&result, insertions[k]);
        qp_str_append(&result, row->data + at, left);
    }
    qp_str_fini(row);
    *row = result;
}

/* Appends a row, mutated or not. */
static void put_row(qp_str_t *file, const char *text, bool touched)
{
    qp_str_t row = {0};
    qp_str_puts(&row, text);
    for (size_t i = 0, n = touched ? 1 + draw(3) : 0; i < n && row.n > 0; i++)
        mutate(&row);
    qp_str_append(file, row.n > 0 ? row.data : "", row.n);
    qp_str_putc(file, '\n');
    qp_str_fini(&row);
}

static void write_bytes(const char *name, const qp_str_t *text)
{
    char *path = qp_format("%s/%s", qp_test_folder(), name);
    CHECK_OK(qp_file_write(path, text->data, text->n));
    qp_free(path);
}

/* --- input ------------------------------------------------------------------------------------ */

#define TURNS                                                                               \
    "[{\"role\": \"user\", \"content\": \"Why?\"}, {\"role\": \"assistant\", \"content\": " \
    "\"So.\"}]"

static const char *const rows[N_ROW] = {
    "{\"text\": \"some text\"}",
    "{\"prompt\": \"2+2= \", \"completion\": \"4\", \"id\": 7}",
    "{\"prompt\": \"p \", \"chosen\": \"good\", \"rejected\": \"bad\"}",
    "{\"prompt\": \"alone\", \"completion\": null}",
    "{\"messages\": " TURNS "}",
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"hi\"}, {\"from\": \"gpt\", \"value\": "
    "\"yo\"}]}",
    "{\"instruction\": \"do\", \"input\": \"it\", \"output\": \"done\"}",
    "{\"prompt\": \"Why?\", \"chosen\": " TURNS ", \"rejected\": [{\"role\": \"user\", "
    "\"content\": \"Why?\"}, {\"role\": \"assistant\", \"content\": \"No.\"}]}",
    "{\"prompt\": [{\"role\": \"user\", \"content\": \"Why?\"}]}",
    "{\"chosen\": \"Q: yes\", \"rejected\": \"Q: no\"}",
    "{\"text\": \"\\u00e9\\ud83d\\ude00 \xc3\xa9\", \"meta\": {\"a\": [1, 2.5, true, null]}}",
    "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}]}, "
    "{\"role\": \"assistant\", \"content\": \"b\"}], \"tools\": []}"};

/* Rows that were not touched, in all files of a run. */
static int64_t n_whole_rows[N_FILE / FILES_PER_RUN], n_whole_questions[N_DUMP];

static void make_rows(void)
{
    for (int f = 0; f < N_FILE; f++) {
        qp_str_t file = {0};
        char name[32];
        draw_state = (uint64_t)f << 32;
        for (int r = 0; r < N_ROW; r++) {
            const bool touched = draw(4) == 0;
            n_whole_rows[f / FILES_PER_RUN] += !touched;
            put_row(&file, rows[r], touched);
        }
        snprintf(name, sizeof name, "r%03d.jsonl", f);
        write_bytes(name, &file);
        qp_str_fini(&file);
    }
}

static void make_dumps(void)
{
    for (int f = 0; f < N_DUMP; f++) {
        qp_str_t file = {0};
        char name[32], row[256];
        draw_state = (uint64_t)(N_FILE + f) << 32;
        qp_str_puts(&file, "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<posts>\n");
        for (int q = 0; q < N_ROW; q++) {
            const bool touched = draw(4) == 0;
            n_whole_questions[f] += !touched;
            snprintf(row, sizeof row,
                     "  <row Id=\"%d\" PostTypeId=\"1\" AcceptedAnswerId=\"%d\" Score=\"3\" "
                     "Body=\"&lt;p&gt;Question %d &amp;amp; more&lt;/p&gt;&#xA;\" Title=\"T\" />",
                     3 * q + 1, 3 * q + 2, q);
            put_row(&file, row, touched);
            for (int a = 2; a <= 3; a++) {
                snprintf(row, sizeof row,
                         "  <row Id=\"%d\" PostTypeId=\"2\" ParentId=\"%d\" Score=\"%d\" "
                         "Body=\"&lt;p&gt;Answer %d&lt;/p&gt;\" />",
                         3 * q + a, 3 * q + 1, 5 * a - 12, a);
                put_row(&file, row, draw(4) == 0);
            }
        }
        qp_str_puts(&file, "</posts>\n");
        snprintf(name, sizeof name, "d%03d.xml", f);
        write_bytes(name, &file);
        qp_str_fini(&file);
    }
}

/* --- runs ------------------------------------------------------------------------------------- */

/* Runs the program with each line of arguments {1}; log and exit code go to <name>.log, .code. */
static void run_all(const char *launcher, const char *names, const char *arguments)
{
    char *command = qp_format(
        "cd %s && printf '%%s\\n' %s | xargs -P 4 -I@ sh -c '%s %s/quipu-prep %s --tokenizer hf "
        "--max-bad 1 >@.log 2>&1; echo $? >@.code'",
        qp_test_folder(), names, launcher, qp_env("QUIPU_BIN"), arguments);
    CHECK(system(command) == 0);
    qp_free(command);
}

typedef struct {
    char *text; /* the log of a run, qp_free */
    char name[32];
} log_t;

static log_t read_log(const char *format, int number)
{
    log_t log = {0};
    size_t n = 0;
    void *code = NULL;
    snprintf(log.name, sizeof log.name, format, number);
    char *path = qp_format("%s/%s.log", qp_test_folder(), log.name);
    CHECK_OK(qp_file_read(path, (void **)&log.text, &n));
    qp_free(path);
    path = qp_format("%s/%s.code", qp_test_folder(), log.name);
    CHECK_OK(qp_file_read(path, &code, &n));
    CHECK_MSG(strcmp(code, "0\n") == 0, "%s: exit code %s%s", log.name, (char *)code, log.text);
    qp_free(code);
    qp_free(path);
    return log;
}

/* The sum of the numbers of the lines that go on with a text. */
static int64_t sum_of(const log_t *log, const char *text)
{
    int64_t sum = 0;
    for (const char *line = log->text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *number = strstr(line, "] ");
        char *rest = NULL;
        if (number == NULL || number > line + strcspn(line, "\n"))
            continue;
        const long long n = strtoll(number + 2, &rest, 10);
        if (rest != number + 2 && qp_has_prefix(rest, text))
            sum += n;
    }
    return sum;
}

static int64_t n_sample(const log_t *log)
{
    static const char *const kinds[] = {"] sft: ", "] reward: ", "] prompt: "};
    int64_t n = 0;
    for (int k = 0; k < 3; k++) {
        long long train = 0, eval = 0;
        const char *at = strstr(log->text, kinds[k]);
        if (at != NULL &&
            sscanf(at + strlen(kinds[k]), "%lld train and %lld eval", &train, &eval) == 2)
            n += train + eval;
    }
    return n;
}

static void check_rows(const char *format, int run)
{
    log_t log = read_log(format, run);
    const int64_t n_row = sum_of(&log, " rows\n"), n_skipped = sum_of(&log, " skipped: ");
    CHECK_MSG(n_row == n_sample(&log) + n_skipped, "%s: %lld rows, %lld samples, %lld skipped",
              log.name, (long long)n_row, (long long)n_sample(&log), (long long)n_skipped);
    CHECK_MSG(n_sample(&log) >= n_whole_rows[run], "%s: %lld samples of %lld whole rows", log.name,
              (long long)n_sample(&log), (long long)n_whole_rows[run]);
    CHECK(n_skipped > 0);
    qp_free(log.text);
}

static void check_dump(int run)
{
    static const char *const no_posts[] = {" skipped: damaged rows",
                                           " skipped: posts with an attribute missing or wrong",
                                           " skipped: posts with the Id of another",
                                           " skipped: posts that are neither question nor answer"};
    log_t log = read_log("d%03d", run);
    int64_t n = sum_of(&log, " questions\n") + sum_of(&log, " answers\n");
    for (size_t i = 0; i < sizeof no_posts / sizeof *no_posts; i++)
        n += sum_of(&log, no_posts[i]);
    CHECK_MSG(sum_of(&log, " posts read\n") == n, "%s: %lld posts, accounted for %lld", log.name,
              (long long)sum_of(&log, " posts read\n"), (long long)n);
    n = sum_of(&log, " questions\n") - sum_of(&log, " skipped: questions without text");
    CHECK_MSG(n_sample(&log) == n, "%s: %lld prompts of %lld questions", log.name,
              (long long)n_sample(&log), (long long)n);
    n += sum_of(&log, no_posts[2]); /* a mutated Id may have been there first */
    CHECK_MSG(n >= n_whole_questions[run], "%s: %lld questions, %lld are whole", log.name,
              (long long)n, (long long)n_whole_questions[run]);
    qp_free(log.text);
}

/* The same numbers and first places on three ranks. */
static void check_ranks(int run)
{
    log_t alone = read_log("r%02d", run), ranks = read_log("n%02d", run);
    const char *a = alone.text, *b = ranks.text;
    while (a != NULL && b != NULL) {
        a = strstr(a, "] ");
        b = strstr(b, "] ");
        CHECK((a == NULL) == (b == NULL));
        if (a == NULL || b == NULL)
            break;
        const size_t n = strcspn(a, "\n");
        CHECK_MSG(strncmp(a, b, n) == 0, "run %d: alone\n%.*s\non three ranks\n%.*s", run, (int)n,
                  a, (int)strcspn(b, "\n"), b);
        a += n;
        b += strcspn(b, "\n");
    }
    qp_free(alone.text);
    qp_free(ranks.text);
}

int main(void)
{
    qp_tokenizer_t *tokenizer = make_tokenizer();
    make_rows();
    make_dumps();
    run_all("", "$(seq -f r%02.0f 0 29)",
            "jsonl $(n=@; seq -f r%03.0f.jsonl ${n#r}0 ${n#r}9) --out @ --eval-fraction 0.2");
    run_all("mpirun --oversubscribe -n 3", "n00 n01",
            "jsonl $(n=@; seq -f r%03.0f.jsonl ${n#n}0 ${n#n}9) --out @ --eval-fraction 0.2");
    run_all("", "$(seq -f d%03.0f 0 99)", "stackexchange @.xml --out @ --kinds prompt");
    for (int run = 0; run < N_FILE / FILES_PER_RUN; run++)
        check_rows("r%02d", run);
    for (int run = 0; run < N_RANKS_RUN; run++)
        check_ranks(run);
    for (int run = 0; run < N_DUMP; run++)
        check_dump(run);
    qp_tokenizer_destroy(&tokenizer);
    return qp_test_end();
}
