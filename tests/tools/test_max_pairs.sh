#!/usr/bin/env bash
# quipu-prep stackexchange --max-pairs: which pairs of a question are taken does not depend on how many may be, so
# fewer are always among more; another seed takes others.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"

make_base base.h5
{
    echo '<posts><row Id="1" PostTypeId="1" Score="1" Body="which?" />'
    for i in 1 2 3 4 5; do # scores 1 to 5: ten pairs
        echo "<row Id=\"$((i + 1))\" PostTypeId=\"2\" ParentId=\"1\" Score=\"$(((1 << i) - 1))\" Body=\"answer $i\" />"
    done
    echo '</posts>'
} >Posts.xml
pairs() { # pairs MAX [SEED]: the pairs, sorted
    quipu-prep stackexchange Posts.xml --base base.h5 --out "max$1" --eval-fraction 0 --kinds reward \
        --max-pairs "$1" --seed "${2:-1}" >log 2>&1 && quipu-inspect --text base.h5 "max$1-reward-train.h5" 2>>log |
        sed 's/,"id":[0-9]*}$/}/' | sort
}
pairs 10 >all
check "ten pairs in all" test "$(wc -l <all)" -eq 10
for n in 1 2 3 4 5 6 7 8 9; do
    pairs $n >few
    pairs $((n + 1)) >rest
    check "$n pairs" test "$(wc -l <few)" -eq "$n"
    check "$n pairs are among $((n + 1))" test -z "$(comm -23 few rest)"
done
pairs 3 >one
pairs 3 2 >other
check "another seed, other pairs" not cmp -s one other

# No pair is preferred for coming first: the first two, 2 and 3 against 1, are both absent with some seed.
absent=0
for seed in 1 2 3 4 5 6 7 8; do
    pairs 2 $seed >two
    grep -qE '"chosen":".?answer [23]","rejected":".?answer 1"' two || absent=$((absent + 1))
done
check "the first pairs are not always taken ($absent of 8 seeds)" test "$absent" -ge 1 -a "$absent" -lt 8
end_test
