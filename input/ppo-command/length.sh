#!/bin/sh
# Rewards answers for their length: 1 at so many characters, 0 at none or at twice as many.
#   length.sh [CHARACTERS]
target=${1:-120}
while IFS= read -r line; do
    answer=${line##*'"response": "'} # the rest of the line is the answer: as JSON, so \n counts 2
    answer=${answer%'"}'}
    off=$((${#answer} > target ? ${#answer} - target : target - ${#answer}))
    thousandths=$((1000 - 1000 * off / target))
    case $thousandths in -*) sign=- ;; *) sign= ;; esac
    printf '{"reward": %s%d.%03d}\n' "$sign" $((${thousandths#-} / 1000)) $((${thousandths#-} % 1000))
done
